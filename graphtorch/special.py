"""The special functions' namespace, `torch.special`."""

from __future__ import annotations

from graphtorch.ops.build import FUNCTIONS

digamma = psi = FUNCTIONS["digamma"]
entr = FUNCTIONS["special_entr"]
erf = FUNCTIONS["erf"]
erfc = FUNCTIONS["erfc"]
erfinv = FUNCTIONS["erfinv"]
exp2 = FUNCTIONS["exp2"]
expit = FUNCTIONS["sigmoid"]
expm1 = FUNCTIONS["expm1"]
gammaln = FUNCTIONS["lgamma"]
log1p = FUNCTIONS["log1p"]
log_softmax = FUNCTIONS["log_softmax"]
logit = FUNCTIONS["logit"]
logsumexp = FUNCTIONS["logsumexp"]
multigammaln = FUNCTIONS["mvlgamma"]
ndtr = FUNCTIONS["special_ndtr"]
polygamma = FUNCTIONS["polygamma"]
round = FUNCTIONS["round"]
sinc = FUNCTIONS["sinc"]
softmax = FUNCTIONS["softmax"]
xlog1py = FUNCTIONS["special_xlog1py"]
xlogy = FUNCTIONS["xlogy"]
