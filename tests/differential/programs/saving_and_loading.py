"""state_dict, checkpoints, warm starts, whole optimizers, map_location, errors of load_state_dict."""

import io
import os
import tempfile

import torch
import torch.nn as nn
import torch.optim as optim

torch.manual_seed(0)


class TheModelClass(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3)
        self.bn = nn.BatchNorm2d(6)
        self.fc1 = nn.Linear(6, 2)

    def forward(self, x):
        return self.fc1(self.bn(self.conv1(x)).mean((2, 3)))


model = TheModelClass()
optimizer = optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
print("Model's state_dict:")
for param_tensor in model.state_dict():
    print(param_tensor, "\t", model.state_dict()[param_tensor].size())
print("Optimizer's state_dict:")
for var_name in optimizer.state_dict():
    print(var_name, "\t", optimizer.state_dict()[var_name])
folder = tempfile.mkdtemp()
path = os.path.join(folder, "model.pt")
loss = model(torch.randn(4, 3, 8, 8)).pow(2).sum()
loss.backward()
optimizer.step()
torch.save(
    {"epoch": 5, "model_state_dict": model.state_dict(), "optimizer_state_dict": optimizer.state_dict(), "loss": loss},
    path,
)
checkpoint = torch.load(path)
print(sorted(checkpoint), checkpoint["epoch"], checkpoint["loss"])
fresh = TheModelClass()
print(fresh.load_state_dict(checkpoint["model_state_dict"]))
other = optim.SGD(fresh.parameters(), lr=0.1)
other.load_state_dict(checkpoint["optimizer_state_dict"])
print(other.param_groups[0]["lr"], other.state_dict()["state"][1]["momentum_buffer"].shape)
fresh.eval()
print(torch.equal(fresh.conv1.weight, model.conv1.weight), fresh.training)
partial = {k: v for k, v in model.state_dict().items() if not k.startswith("fc1")}
partial["extra"] = torch.ones(1)
print(fresh.load_state_dict(partial, strict=False))
try:
    fresh.load_state_dict(partial)
except RuntimeError as error:
    print(error)
wrong = dict(model.state_dict())
wrong["fc1.bias"] = torch.zeros(3)
try:
    fresh.load_state_dict(wrong)
except RuntimeError as error:
    print(error)
buffer = io.BytesIO()
x = torch.arange(6).reshape(2, 3)
torch.save([x, x.t(), {"a": x[0]}, (1, "s", None, 2.5, True)], buffer)
buffer.seek(0)
loaded = torch.load(buffer, map_location=torch.device("cpu"))
print(loaded)
loaded[0][0, 0] = 100
print(loaded[1][0, 0], loaded[2]["a"])
p = nn.Parameter(torch.ones(2))
buffer = io.BytesIO()
torch.save(p, buffer)
buffer.seek(0)
print(torch.load(buffer))
buffer = io.BytesIO()
torch.save(torch.arange(1000)[:3], buffer)
print(buffer.tell() > 8000)
buffer.seek(0)
print(torch.load(buffer).untyped_storage().nbytes())
try:
    torch.load(os.path.join(folder, "absent.pt"))
except FileNotFoundError as error:
    print(type(error).__name__)
with torch.device("meta"):
    skeleton = TheModelClass()
print(skeleton.fc1.weight)
print(skeleton.load_state_dict(model.state_dict(), assign=True), skeleton.fc1.bias.device)
