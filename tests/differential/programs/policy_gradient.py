"""REINFORCE and an actor-critic step with multinomial actions and log-probabilities."""

from collections import deque

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim

torch.manual_seed(543)
eps = np.finfo(np.float32).eps.item()


class Policy(nn.Module):
    def __init__(self):
        super().__init__()
        self.affine1 = nn.Linear(3, 16)
        self.dropout = nn.Dropout(p=0.2)
        self.action_head = nn.Linear(16, 2)
        self.value_head = nn.Linear(16, 1)
        self.saved_log_probs = []
        self.rewards = []

    def forward(self, x):
        x = F.relu(self.dropout(self.affine1(x)))
        return F.softmax(self.action_head(x), dim=-1), self.value_head(x)


policy = Policy()
optimizer = optim.Adam(policy.parameters(), lr=1e-2)
state = np.array([0.0, 0.5, 1.0], dtype=np.float32)
running = deque(maxlen=4)
for episode in range(4):
    values = []
    for t in range(8):
        probs, value = policy(torch.from_numpy(state).float().unsqueeze(0))
        action = torch.multinomial(probs, 1)
        policy.saved_log_probs.append(probs.gather(1, action).log().squeeze())
        values.append(value.squeeze())
        policy.rewards.append(1.0 if action.item() == 1 else -0.5)
        state = np.roll(state, 1) + np.float32(0.01)
    R, returns = 0.0, deque()
    for r in policy.rewards[::-1]:
        R = r + 0.99 * R
        returns.appendleft(R)
    returns = torch.tensor(returns)
    returns = (returns - returns.mean()) / (returns.std() + eps)
    policy_losses, value_losses = [], []
    for log_prob, value, R in zip(policy.saved_log_probs, values, returns):
        advantage = R - value.item()
        policy_losses.append(-log_prob * advantage)
        value_losses.append(F.smooth_l1_loss(value, torch.tensor(R.item())))
    optimizer.zero_grad()
    loss = torch.stack(policy_losses).sum() + torch.stack(value_losses).sum()
    loss.backward()
    optimizer.step()
    running.append(sum(policy.rewards))
    print(f"Episode {episode}\tReward: {sum(policy.rewards):5.2f}\tLoss: {loss.item():.4f}")
    del policy.rewards[:], policy.saved_log_probs[:]
print(returns)
print(np.mean(running), loss)
print(policy)
logits = torch.tensor([[2.0, 1.0, 0.1]])
print(F.gumbel_softmax(logits, tau=0.5), F.gumbel_softmax(logits, hard=True))
entropy = -(F.softmax(logits, -1) * F.log_softmax(logits, -1)).sum()
print(f"entropy {entropy:.4f}", logits.softmax(-1).cumsum(-1))
