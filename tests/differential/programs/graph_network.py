"""Message passing with scatter and index operations: a graph convolution by hand, pooling over graphs, attention."""

import torch
import torch.nn.functional as F
from torch import nn

torch.manual_seed(0)
edge_index = torch.tensor([[0, 1, 1, 2, 3, 4, 4, 5], [1, 0, 2, 1, 4, 3, 5, 4]])
x = torch.randn(6, 4)
batch = torch.tensor([0, 0, 0, 1, 1, 1])


class GCNConv(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.lin = nn.Linear(in_channels, out_channels, bias=False)
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x, edge_index):
        n = x.size(0)
        loops = torch.arange(n).unsqueeze(0).repeat(2, 1)
        row, col = torch.cat([edge_index, loops], dim=1)
        deg = torch.zeros(n).scatter_add_(0, col, torch.ones(col.size(0)))
        norm = deg.pow(-0.5)[row] * deg.pow(-0.5)[col]
        x = self.lin(x)
        out = torch.zeros(n, x.size(1)).index_add_(0, col, norm.unsqueeze(-1) * x[row])
        return out + self.bias


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = GCNConv(4, 8), GCNConv(8, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, x, edge_index, batch):
        x = F.relu(self.conv1(x, edge_index))
        x = F.dropout(x, p=0.2, training=self.training)
        x = self.conv2(x, edge_index)
        count = torch.bincount(batch)
        pooled = torch.zeros(2, 8).index_add(0, batch, x) / count.unsqueeze(1)
        return F.log_softmax(self.head(pooled), dim=-1)


model = Net()
print(model)
optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
target = torch.tensor([0, 1])
for epoch in range(10):
    optimizer.zero_grad()
    loss = F.nll_loss(model(x, edge_index, batch), target)
    loss.backward()
    optimizer.step()
    if epoch % 5 == 4:
        print(f"{epoch} {loss:.4f}")
model.eval()
print(model(x, edge_index, batch).argmax(1))
adj = torch.zeros(6, 6)
adj[edge_index[0], edge_index[1]] = 1
print(adj, adj.sum(1), torch.linalg.eigvalsh(torch.diag(adj.sum(1)) - adj).round(decimals=4).abs())
scores = torch.where(adj > 0, x @ x.T, torch.tensor(float("-inf")))
alpha = torch.softmax(scores, dim=-1)
print(
    alpha[0],
    (alpha @ x).shape,
    adj.nonzero().t().equal(edge_index[:, torch.argsort(edge_index[0] * 6 + edge_index[1])]),
)
print(torch.zeros(2, 4).scatter_reduce(0, batch.unsqueeze(1).expand(-1, 4), x, "amax", include_self=False))
print(torch.unique(edge_index, return_counts=True), torch.unique_consecutive(batch))
print(torch.segment_reduce(x[:, 0], "mean", lengths=torch.tensor([3, 3])), x.index_select(0, edge_index[0]).shape)
