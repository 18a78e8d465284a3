"""Classifying names with a hand-made recurrent network, then with nn.RNN over padded batches."""

import random
import string

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

torch.manual_seed(1)
random.seed(1)
all_letters = string.ascii_letters + " .,;'"
n_letters = len(all_letters)
names = {
    "Italian": ["Rossi", "Bianchi", "Ferrari", "Romano"],
    "Scottish": ["Smith", "Brown", "Wilson", "Reid"],
    "Russian": ["Ivanov", "Petrov", "Sokolov", "Popov"],
}
categories = list(names)


def letter_to_tensor(letter):
    tensor = torch.zeros(1, n_letters)
    tensor[0][all_letters.find(letter)] = 1
    return tensor


def line_to_tensor(line):
    tensor = torch.zeros(len(line), 1, n_letters)
    for li, letter in enumerate(line):
        tensor[li][0][all_letters.find(letter)] = 1
    return tensor


print(letter_to_tensor("J"))
print(line_to_tensor("Jones").size())


class RNN(nn.Module):
    def __init__(self, input_size, hidden_size, output_size):
        super().__init__()
        self.hidden_size = hidden_size
        self.i2h = nn.Linear(input_size + hidden_size, hidden_size)
        self.i2o = nn.Linear(hidden_size, output_size)
        self.softmax = nn.LogSoftmax(dim=1)

    def forward(self, input, hidden):
        combined = torch.cat((input, hidden), 1)
        hidden = torch.tanh(self.i2h(combined))
        return self.softmax(self.i2o(hidden)), hidden

    def init_hidden(self):
        return torch.zeros(1, self.hidden_size)


rnn = RNN(n_letters, 16, len(categories))
output, next_hidden = rnn(line_to_tensor("Albert")[0], torch.zeros(1, 16))
print(output)


def category_from_output(output):
    top_n, top_i = output.topk(1)
    return categories[top_i[0].item()], top_i[0].item()


print(category_from_output(output))
criterion = nn.NLLLoss()
total = 0.0
for iteration in range(60):
    category = random.choice(categories)
    line = random.choice(names[category])
    target = torch.tensor([categories.index(category)], dtype=torch.long)
    hidden = rnn.init_hidden()
    rnn.zero_grad()
    for letter in line_to_tensor(line):
        output, hidden = rnn(letter, hidden)
    loss = criterion(output, target)
    loss.backward()
    for p in rnn.parameters():
        p.data.add_(p.grad.data, alpha=-0.05)
    total += loss.item()
    if iteration % 20 == 19:
        print(iteration + 1, f"{total / 20:.4f}", category_from_output(output)[0], category)
        total = 0.0
lines = [torch.tensor([all_letters.find(c) for c in n]) for n in names["Russian"]]
padded = pad_sequence(lines, batch_first=True, padding_value=0)
lengths = torch.tensor([len(line) for line in lines])
print(padded, lengths)
embedding = nn.Embedding(n_letters, 5, padding_idx=0)
gru = nn.GRU(5, 6, bidirectional=True, batch_first=True)
packed = pack_padded_sequence(embedding(padded), lengths, batch_first=True, enforce_sorted=False)
print(packed.batch_sizes, packed.sorted_indices)
out, h = gru(packed)
unpacked, back = pad_packed_sequence(out, batch_first=True)
print(unpacked.shape, back, h.shape)
print(h[0, :, :3])
print(F.one_hot(padded[0, :3], n_letters).sum(0).nonzero().flatten())
print(gru)
