"""Small programs in the manner of PyTorch's tutorials: each runs with `torch` being one library or the other, and
prints the same text."""

PROGRAMS = {
    "tensors": """
data = [[1, 2], [3, 4]]
x_data = torch.tensor(data)
x_np = torch.from_numpy(np.array(data))
x_ones = torch.ones_like(x_data)
print(f"Ones Tensor: \\n {x_ones} \\n")
x_rand = torch.rand_like(x_data, dtype=torch.float)
print(f"Random Tensor: \\n {x_rand} \\n")
shape = (2, 3,)
print(torch.rand(shape), torch.ones(shape), torch.zeros(shape), sep="\\n")
tensor = torch.rand(3, 4)
print(f"Shape of tensor: {tensor.shape}")
print(f"Datatype of tensor: {tensor.dtype}")
print(f"Device tensor is stored on: {tensor.device}")
tensor = torch.ones(4, 4)
print(f"First row: {tensor[0]}")
print(f"First column: {tensor[:, 0]}")
print(f"Last column: {tensor[..., -1]}")
tensor[:, 1] = 0
print(tensor)
t1 = torch.cat([tensor, tensor, tensor], dim=1)
print(t1)
y1 = tensor @ tensor.T
y2 = tensor.matmul(tensor.T)
print(y1, torch.equal(y1, y2))
z3 = torch.rand_like(tensor)
print(torch.mul(tensor, tensor, out=z3))
agg = tensor.sum()
agg_item = agg.item()
print(agg_item, type(agg_item))
print(tensor, "\\n")
tensor.add_(5)
print(tensor)
t = torch.ones(5)
n = t.numpy()
t.add_(1)
print(f"t: {t}")
print(f"n: {n}")
print(type(t), x_np.storage_offset(), x_np.is_contiguous())
""",
    "autograd": """
x = torch.ones(5)
y = torch.zeros(3)
w = torch.randn(5, 3, requires_grad=True)
b = torch.randn(3, requires_grad=True)
z = torch.matmul(x, w) + b
loss = torch.nn.functional.binary_cross_entropy_with_logits(z, y)
print(z, loss)
print(z.grad_fn.name(), loss.grad_fn.name())
loss.backward()
print(w.grad)
print(b.grad)
print(z.requires_grad)
with torch.no_grad():
    z = torch.matmul(x, w) + b
print(z.requires_grad)
print((torch.matmul(x, w) + b).detach().requires_grad)
inp = torch.eye(4, 5, requires_grad=True)
out = (inp + 1).pow(2).t()
out.backward(torch.ones_like(out), retain_graph=True)
print(f"First call\\n{inp.grad}")
out.backward(torch.ones_like(out), retain_graph=True)
print(f"\\nSecond call\\n{inp.grad}")
inp.grad.zero_()
out.backward(torch.ones_like(out), retain_graph=True)
print(f"\\nCall after zeroing gradients\\n{inp.grad}")
print(out.grad_fn.next_functions[0][0].name(), out.is_leaf, inp.is_leaf)
""",
    "blitz autograd": """
a = torch.tensor([2., 3.], requires_grad=True)
b = torch.tensor([6., 4.], requires_grad=True)
Q = 3*a**3 - b**2
print(Q)
external_grad = torch.tensor([1., 1.])
Q.backward(gradient=external_grad)
print(9*a**2 == a.grad)
print(-2*b == b.grad)
x = torch.rand(5, 5)
y = torch.rand(5, 5)
z = torch.rand((5, 5), requires_grad=True)
a = x + y
print(f"Does `a` require gradients?: {a.requires_grad}")
b = x + z
print(f"Does `b` require gradients?: {b.requires_grad}")
try:
    Q.backward(gradient=external_grad)
except RuntimeError as error:
    print(str(error).splitlines()[0][:70])
""",
    "network": """
class NeuralNetwork(nn.Module):
    def __init__(self):
        super().__init__()
        self.flatten = nn.Flatten()
        self.linear_relu_stack = nn.Sequential(
            nn.Linear(28*28, 16),
            nn.ReLU(),
            nn.Linear(16, 16),
            nn.ReLU(),
            nn.Linear(16, 10)
        )

    def forward(self, x):
        x = self.flatten(x)
        return self.linear_relu_stack(x)

model = NeuralNetwork().to("cpu")
print(model)
X = torch.rand(1, 28, 28)
logits = model(X)
pred_probab = nn.Softmax(dim=1)(logits)
y_pred = pred_probab.argmax(1)
print(f"Predicted class: {y_pred}")
input_image = torch.rand(3, 28, 28)
print(input_image.size())
flat_image = nn.Flatten()(input_image)
print(flat_image.size())
hidden1 = nn.Linear(in_features=28*28, out_features=5)(flat_image)
print(f"Before ReLU: {hidden1}\\n\\n")
hidden1 = nn.ReLU()(hidden1)
print(f"After ReLU: {hidden1}")
for name, param in model.named_parameters():
    print(f"Layer: {name} | Size: {param.size()} | Values : {param[:2]} \\n")
print(sum(p.numel() for p in model.parameters()))
""",
    "optimization loop": """
torch.manual_seed(3)
X = torch.randn(64, 4)
true_w = torch.tensor([1.5, -2.0, 0.5, 3.0])
y = (X @ true_w + 0.1 * torch.randn(64)).unsqueeze(1)
model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
loss_fn = nn.MSELoss()
for optimizer in (torch.optim.SGD(model.parameters(), lr=1e-2), torch.optim.Adam(model.parameters(), lr=1e-2)):
    print(optimizer)
    for epoch in range(5):
        pred = model(X)
        loss = loss_fn(pred, y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(f"Epoch {epoch+1}: loss {loss.item():>.4f}")
with torch.no_grad():
    print(model(X[:3]))
""",
    "data loader": """
from_data = DataLoader(TensorDataset(torch.arange(10.).reshape(10, 1), torch.arange(10)), batch_size=4, shuffle=True)
for epoch in range(2):
    for batch, (X, y) in enumerate(from_data):
        print(batch, X.shape, y, X.flatten())

class Squares(Dataset):
    def __len__(self):
        return 7

    def __getitem__(self, index):
        return {"x": float(index), "name": str(index)}, index ** 2

for features, label in DataLoader(Squares(), batch_size=3, drop_last=True):
    print(features, label)
first, second = random_split(Squares(), [4, 3], generator=torch.Generator().manual_seed(42))
print(len(first), first.indices, second.indices)
print(len(from_data), next(iter(DataLoader(Squares()))))
""",
    "save and load": """
model = nn.Linear(3, 2)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
model(torch.ones(1, 3)).sum().backward()
optimizer.step()
print("Model's state_dict:")
for name in model.state_dict():
    print(name, "\\t", model.state_dict()[name].size())
print("Optimizer's state_dict:")
for name in optimizer.state_dict():
    print(name, "\\t", optimizer.state_dict()[name])
buffer = io.BytesIO()
torch.save({"epoch": 5, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, buffer)
buffer.seek(0)
checkpoint = torch.load(buffer, weights_only=True)
print(checkpoint)
other = nn.Linear(3, 2)
print(other.load_state_dict(checkpoint["model"]))
print(torch.equal(other.weight, model.weight), other.training, other.eval())
try:
    nn.Linear(4, 2).load_state_dict(checkpoint["model"])
except RuntimeError as error:
    print(error)
""",
    "custom function": """
class LegendrePolynomial3(torch.autograd.Function):
    @staticmethod
    def forward(ctx, input):
        ctx.save_for_backward(input)
        return 0.5 * (5 * input ** 3 - 3 * input)

    @staticmethod
    def backward(ctx, grad_output):
        input, = ctx.saved_tensors
        return grad_output * 1.5 * (5 * input ** 2 - 1)

x = torch.linspace(-math.pi, math.pi, 2000)
y = torch.sin(x)
a = torch.full((), 0.0, requires_grad=True)
b = torch.full((), -1.0, requires_grad=True)
c = torch.full((), 0.0, requires_grad=True)
d = torch.full((), 0.3, requires_grad=True)
learning_rate = 5e-6
for t in range(30):
    P3 = LegendrePolynomial3.apply
    y_pred = a + b * P3(c + d * x)
    loss = (y_pred - y).pow(2).sum()
    if t % 10 == 9:
        print(t, round(loss.item(), 2))
    loss.backward()
    with torch.no_grad():
        a -= learning_rate * a.grad
        b -= learning_rate * b.grad
        c -= learning_rate * c.grad
        d -= learning_rate * d.grad
        a.grad = None
        b.grad = None
        c.grad = None
        d.grad = None
print(f"Result: y = {abs(a.item()):.4f} + {b.item():.4f} * P3({abs(c.item()):.4f} + {d.item():.4f} x)")
print(y_pred.grad_fn.name(), P3(x[:2].requires_grad_()))
""",
    "polynomial module": """
class Polynomial3(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a = torch.nn.Parameter(torch.randn(()))
        self.b = torch.nn.Parameter(torch.randn(()))
        self.c = torch.nn.Parameter(torch.randn(()))
        self.d = torch.nn.Parameter(torch.randn(()))

    def forward(self, x):
        return self.a + self.b * x + self.c * x ** 2 + self.d * x ** 3

    def string(self):
        return f"y = {self.a.item():.3f} + {self.b.item():.3f} x + {self.c.item():.3f} x^2 + {self.d.item():.3f} x^3"

x = torch.linspace(-math.pi, math.pi, 500)
y = torch.sin(x)
model = Polynomial3()
criterion = torch.nn.MSELoss(reduction="sum")
optimizer = torch.optim.SGD(model.parameters(), lr=1e-6)
for t in range(40):
    y_pred = model(x)
    loss = criterion(y_pred, y)
    if t % 10 == 9:
        print(t, f"{loss.item():.1f}")
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(f"Result: {model.string()}")
print(model, list(model.parameters())[0], model.a)
""",
    "convolutional classifier": """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * 5 * 5, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, input):
        c1 = F.relu(self.conv1(input))
        s2 = F.max_pool2d(c1, (2, 2))
        c3 = F.relu(self.conv2(s2))
        s4 = F.max_pool2d(c3, 2)
        s4 = torch.flatten(s4, 1)
        f5 = F.relu(self.fc1(s4))
        f6 = F.relu(self.fc2(f5))
        return self.fc3(f6)

net = Net()
print(net)
params = list(net.parameters())
print(len(params), params[0].size())
input = torch.randn(1, 1, 32, 32)
out = net(input)
print(out)
net.zero_grad()
target = torch.randn(10).view(1, -1)
loss = nn.MSELoss()(out, target)
print(loss)
print(loss.grad_fn.name(), loss.grad_fn.next_functions[0][0].name())
print("conv1.bias.grad before backward", net.conv1.bias.grad)
loss.backward()
print("conv1.bias.grad after backward", net.conv1.bias.grad)
optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
for step in range(3):
    optimizer.zero_grad()
    loss = nn.MSELoss()(net(input), target)
    loss.backward()
    optimizer.step()
    print(f"{loss.item():.5f}")
""",
    "character recurrent network": """
class RNN(nn.Module):
    def __init__(self, input_size, hidden_size, output_size):
        super().__init__()
        self.rnn = nn.RNN(input_size, hidden_size)
        self.h2o = nn.Linear(hidden_size, output_size)
        self.softmax = nn.LogSoftmax(dim=1)

    def forward(self, line):
        _, hidden = self.rnn(line)
        return self.softmax(self.h2o(hidden[0]))

letters = "abcdefghij"
def line_to_tensor(line):
    tensor = torch.zeros(len(line), 1, len(letters))
    for i, letter in enumerate(line):
        tensor[i][0][letters.find(letter)] = 1
    return tensor

rnn = RNN(len(letters), 12, 3)
print(rnn)
print(line_to_tensor("ab"))
optimizer = torch.optim.SGD(rnn.parameters(), lr=0.15)
criterion = nn.NLLLoss()
for epoch in range(3):
    total = 0
    for word, label in (("abc", 0), ("dig", 1), ("hij", 2)):
        output = rnn(line_to_tensor(word))
        loss = criterion(output, torch.tensor([label]))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(rnn.parameters(), 3)
        optimizer.step()
        total += loss.item()
    print(epoch, f"{total:.4f}")
topv, topi = output.topk(2)
print(topv, topi)
""",
    "attention": """
torch.manual_seed(1)
layer = nn.TransformerEncoderLayer(d_model=8, nhead=2, dim_feedforward=16, batch_first=True)
encoder = nn.TransformerEncoder(layer, num_layers=2)
print(layer)
encoder.eval()
src = torch.rand(2, 5, 8)
mask = torch.triu(torch.full((5, 5), float("-inf")), diagonal=1)
print(mask)
out = encoder(src, mask=mask)
print(out.shape, out[0, 0])
q = torch.rand(1, 2, 4, 8)
print(F.scaled_dot_product_attention(q, q, q, is_causal=True)[0, 0])
embedding = nn.Embedding(10, 3, padding_idx=0)
print(embedding(torch.LongTensor([[0, 2, 0, 5]])))
""",
    "scheduler and metrics": """
model = nn.Linear(2, 2)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2, gamma=0.1)
for epoch in range(5):
    optimizer.zero_grad()
    model(torch.ones(1, 2)).pow(2).sum().backward()
    optimizer.step()
    scheduler.step()
    print(epoch, scheduler.get_last_lr())
print(optimizer)
confusion = torch.zeros(3, 3, dtype=torch.int64)
for t, p in zip(torch.tensor([0, 1, 2, 2]), torch.tensor([0, 2, 2, 1])):
    confusion[t, p] += 1
print(confusion, confusion.diag().sum().item() / confusion.sum().item())
print(confusion.float().mean(dim=0), confusion.sum(1, keepdim=True))
print(torch.tensor([0.1, 0.7, 0.2]).argmax(), torch.max(torch.tensor([[1, 5], [7, 2]]), dim=1))
print(torch.bincount(torch.tensor([0, 1, 1, 3])), torch.unique(torch.tensor([3, 1, 3]), return_counts=True))
""",
    "variational autoencoder": """
class VAE(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(6, 5)
        self.fc21 = nn.Linear(5, 2)
        self.fc22 = nn.Linear(5, 2)
        self.fc3 = nn.Linear(2, 5)
        self.fc4 = nn.Linear(5, 6)

    def reparameterize(self, mu, logvar):
        std = torch.exp(0.5 * logvar)
        eps = torch.randn_like(std)
        return mu + eps * std

    def forward(self, x):
        h1 = F.relu(self.fc1(x.view(-1, 6)))
        mu, logvar = self.fc21(h1), self.fc22(h1)
        z = self.reparameterize(mu, logvar)
        return torch.sigmoid(self.fc4(F.relu(self.fc3(z)))), mu, logvar

model = VAE()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
data = torch.rand(4, 2, 3)
for step in range(4):
    recon, mu, logvar = model(data)
    BCE = F.binary_cross_entropy(recon, data.view(-1, 6), reduction="sum")
    KLD = -0.5 * torch.sum(1 + logvar - mu.pow(2) - logvar.exp())
    loss = BCE + KLD
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f"step {step} loss {loss.item():.4f}", BCE, KLD)
print(recon[0], model)
""",
    "broadcasting and masks": """
x = torch.arange(12).reshape(3, 4)
print(x[x % 2 == 0], x[[0, 2]], x[:, [1, -1]], x[1:, ::2])
print(x.float().std(dim=1), (x > 5).nonzero(), torch.where(x > 5, x, -1))
y = x.clone()
y[y > 8] = 0
y[0] += 100
print(y, x.max(), x.sum(dim=0), x.T.shape)
print(x[None].shape, x[..., None].shape, x.view(2, -1), x.flatten()[:3])
a, b = torch.meshgrid(torch.arange(2), torch.arange(3), indexing="ij")
print(a + b * 10, torch.outer(torch.arange(3.), torch.ones(2)))
print(torch.stack(list(x.unbind(0)[:2])), x.chunk(2, dim=1)[0], torch.split(x, [1, 2])[1])
print(x.gather(1, torch.tensor([[0], [1], [2]])), torch.zeros(3, 4).scatter_(1, torch.tensor([[0], [1], [2]]), 1.0))
print(torch.einsum("ij,kj->ik", x.float(), x.float()), x.cumsum(1), torch.tril(torch.ones(3, 3)))
print(x.to(torch.float16) / 3, (x / 0).isinf().any(), torch.tensor(7) // -2, torch.tensor(-7) % 3)
print(torch.linspace(0, 1, 5), torch.logspace(0, 2, 3), torch.arange(0, 1, 0.3), torch.eye(2))
try:
    x + torch.ones(5)
except RuntimeError as error:
    print(str(error).splitlines()[0])
print(repr(torch.tensor([1e-8, 1.0, 1e8])), torch.tensor(3.0), torch.tensor([]), torch.tensor([[True]]))
print(f"{torch.tensor(3.14159):.2f}", len(x), list(torch.tensor([1, 2])), 3 in x, x.tolist())
""",
    "probability and sampling": """
probs = torch.tensor([0.1, 0.2, 0.7])
print(torch.multinomial(probs, 5, replacement=True), torch.bernoulli(probs), torch.randperm(5))
print(torch.normal(0.0, 1.0, (2, 2)), torch.randint(0, 10, (3,)), torch.empty(2).uniform_(-1, 1))
state = torch.get_rng_state()
first = torch.randn(2)
torch.set_rng_state(state)
print(torch.equal(first, torch.randn(2)), torch.initial_seed())
g = torch.Generator().manual_seed(1)
print(torch.rand(2, generator=g), g.initial_seed())
logits = torch.tensor([[1.0, 2.0, 3.0]])
print(F.softmax(logits, dim=-1), F.log_softmax(logits, -1), F.gumbel_softmax(logits, hard=True))
print(F.one_hot(torch.tensor([0, 2]), 3), F.cross_entropy(logits, torch.tensor([1]), label_smoothing=0.1))
print(F.dropout(torch.ones(6), 0.5), nn.Dropout(0.5).eval()(torch.ones(3)))
print(torch.linalg.norm(logits), torch.cov(torch.rand(2, 4)), torch.quantile(probs, 0.5))
""",
}
