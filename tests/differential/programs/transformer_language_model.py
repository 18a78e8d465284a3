"""A transformer encoder with positional encoding as a language model; masks; generation."""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F

torch.manual_seed(0)


class PositionalEncoding(nn.Module):
    def __init__(self, d_model, dropout=0.1, max_len=50):
        super().__init__()
        self.dropout = nn.Dropout(p=dropout)
        position = torch.arange(max_len).unsqueeze(1)
        div_term = torch.exp(torch.arange(0, d_model, 2) * (-math.log(10000.0) / d_model))
        pe = torch.zeros(max_len, 1, d_model)
        pe[:, 0, 0::2] = torch.sin(position * div_term)
        pe[:, 0, 1::2] = torch.cos(position * div_term)
        self.register_buffer("pe", pe)

    def forward(self, x):
        return self.dropout(x + self.pe[: x.size(0)])


class TransformerModel(nn.Module):
    def __init__(self, ntoken, d_model, nhead, d_hid, nlayers, dropout=0.2):
        super().__init__()
        self.model_type = "Transformer"
        self.pos_encoder = PositionalEncoding(d_model, dropout)
        layers = nn.TransformerEncoderLayer(d_model, nhead, d_hid, dropout)
        self.transformer_encoder = nn.TransformerEncoder(layers, nlayers, enable_nested_tensor=False)
        self.embedding = nn.Embedding(ntoken, d_model)
        self.d_model = d_model
        self.linear = nn.Linear(d_model, ntoken)
        self.init_weights()

    def init_weights(self):
        self.embedding.weight.data.uniform_(-0.1, 0.1)
        self.linear.bias.data.zero_()
        self.linear.weight.data.uniform_(-0.1, 0.1)

    def forward(self, src, src_mask=None):
        src = self.embedding(src) * math.sqrt(self.d_model)
        src = self.pos_encoder(src)
        if src_mask is None:
            src_mask = nn.Transformer.generate_square_subsequent_mask(len(src))
        return self.linear(self.transformer_encoder(src, src_mask))


text = "the cat sat on the mat and the dog sat on the log "
vocab = sorted(set(text))
stoi = {ch: i for i, ch in enumerate(vocab)}
data = torch.tensor([stoi[c] for c in text * 4])
bptt, batch = 10, 4
data = data[: data.size(0) // batch * batch].view(batch, -1).t().contiguous()
print(data.shape, data[:3])
model = TransformerModel(len(vocab), 16, 2, 32, 2)
print(model)
print(nn.Transformer.generate_square_subsequent_mask(4))
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1.0, gamma=0.95)
model.train()
for epoch in range(2):
    total = 0.0
    for i in range(0, data.size(0) - 1, bptt):
        n = min(bptt, len(data) - 1 - i)
        source, target = data[i : i + n], data[i + 1 : i + 1 + n].reshape(-1)
        loss = criterion(model(source).view(-1, len(vocab)), target)
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        total += loss.item()
    print(f"epoch {epoch} lr {scheduler.get_last_lr()[0]:.2f} loss {total:.3f} norm {norm:.3f}")
    scheduler.step()
model.eval()
with torch.no_grad():
    context = torch.tensor([[stoi["t"]], [stoi["h"]]])
    for _ in range(5):
        logits = model(context)[-1]
        context = torch.cat((context, logits.argmax(-1, keepdim=True)), 0)
    print(context.flatten().tolist())
    probs = F.softmax(logits / 0.8, dim=-1)
    v, ix = torch.topk(probs, 3)
    print(v, ix)
    print(torch.multinomial(probs, 4, replacement=True))
q = torch.randn(2, 2, 5, 8)
print(F.scaled_dot_product_attention(q, q, q, is_causal=True)[0, 0, 0])
attn = nn.MultiheadAttention(8, 2, batch_first=True)
out, weights = attn(q[0], q[0], q[0], attn_mask=torch.triu(torch.ones(5, 5), 1).bool())
print(weights[0])
