"""Encoder, attention decoder with teacher forcing, greedy evaluation."""

import random

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import optim

torch.manual_seed(0)
random.seed(0)
SOS_token, EOS_token, MAX_LENGTH = 0, 1, 6


class Lang:
    def __init__(self, name):
        self.name = name
        self.word2index = {}
        self.index2word = {0: "SOS", 1: "EOS"}
        self.n_words = 2

    def add_sentence(self, sentence):
        for word in sentence.split(" "):
            if word not in self.word2index:
                self.word2index[word] = self.n_words
                self.index2word[self.n_words] = word
                self.n_words += 1


pairs = [
    ("je suis la", "i am here"),
    ("tu es la", "you are here"),
    ("il est froid", "he is cold"),
    ("je pars", "i leave"),
]
fra, eng = Lang("fra"), Lang("eng")
for a, b in pairs:
    fra.add_sentence(a)
    eng.add_sentence(b)
print(fra.n_words, eng.n_words)


class EncoderRNN(nn.Module):
    def __init__(self, input_size, hidden_size, dropout_p=0.1):
        super().__init__()
        self.embedding = nn.Embedding(input_size, hidden_size)
        self.gru = nn.GRU(hidden_size, hidden_size, batch_first=True)
        self.dropout = nn.Dropout(dropout_p)

    def forward(self, input):
        return self.gru(self.dropout(self.embedding(input)))


class BahdanauAttention(nn.Module):
    def __init__(self, hidden_size):
        super().__init__()
        self.Wa = nn.Linear(hidden_size, hidden_size)
        self.Ua = nn.Linear(hidden_size, hidden_size)
        self.Va = nn.Linear(hidden_size, 1)

    def forward(self, query, keys):
        scores = self.Va(torch.tanh(self.Wa(query) + self.Ua(keys)))
        scores = scores.squeeze(2).unsqueeze(1)
        weights = F.softmax(scores, dim=-1)
        return torch.bmm(weights, keys), weights


class AttnDecoderRNN(nn.Module):
    def __init__(self, hidden_size, output_size, dropout_p=0.1):
        super().__init__()
        self.embedding = nn.Embedding(output_size, hidden_size)
        self.attention = BahdanauAttention(hidden_size)
        self.gru = nn.GRU(2 * hidden_size, hidden_size, batch_first=True)
        self.out = nn.Linear(hidden_size, output_size)
        self.dropout = nn.Dropout(dropout_p)

    def forward(self, encoder_outputs, encoder_hidden, target_tensor=None):
        decoder_input = torch.empty(encoder_outputs.size(0), 1, dtype=torch.long).fill_(SOS_token)
        hidden, outputs, attentions = encoder_hidden, [], []
        for i in range(MAX_LENGTH):
            embedded = self.dropout(self.embedding(decoder_input))
            context, weights = self.attention(hidden.permute(1, 0, 2), encoder_outputs)
            output, hidden = self.gru(torch.cat((embedded, context), dim=2), hidden)
            output = self.out(output)
            outputs.append(output)
            attentions.append(weights)
            if target_tensor is not None:
                decoder_input = target_tensor[:, i].unsqueeze(1)
            else:
                _, topi = output.topk(1)
                decoder_input = topi.squeeze(-1).detach()
        return F.log_softmax(torch.cat(outputs, dim=1), dim=-1), hidden, torch.cat(attentions, dim=1)


def to_row(lang, sentence):
    row = [lang.word2index[w] for w in sentence.split(" ")] + [EOS_token]
    return row + [0] * (MAX_LENGTH - len(row))


source = torch.tensor([to_row(fra, a) for a, _ in pairs])
target = torch.tensor([to_row(eng, b) for _, b in pairs])
encoder = EncoderRNN(fra.n_words, 16)
decoder = AttnDecoderRNN(16, eng.n_words)
print(encoder, decoder, sep="\n")
opts = [optim.Adam(m.parameters(), lr=0.02) for m in (encoder, decoder)]
criterion = nn.NLLLoss()
for epoch in range(1, 13):
    for o in opts:
        o.zero_grad()
    outputs, hidden = encoder(source)
    decoded, _, _ = decoder(outputs, hidden, target)
    loss = criterion(decoded.view(-1, decoded.size(-1)), target.view(-1))
    loss.backward()
    for o in opts:
        o.step()
    if epoch % 4 == 0:
        print(f"({epoch} {epoch / 12:.0%}) {loss.item():.4f}")
encoder.eval()
decoder.eval()
with torch.no_grad():
    outputs, hidden = encoder(source)
    decoded, _, attentions = decoder(outputs, hidden)
    _, topi = decoded.topk(1)
    for i, (a, b) in enumerate(pairs):
        words = []
        for idx in topi[i].squeeze():
            if idx.item() == EOS_token:
                break
            words.append(eng.index2word[idx.item()])
        print(">", a, "=", b, "<", " ".join(words))
    print(attentions.shape, attentions[0, 0].sum())
