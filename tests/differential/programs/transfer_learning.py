"""A pretrained body with a new head: freezing, train and eval phases, best weights, schedules."""

import copy

import torch
import torch.backends.cudnn as cudnn
import torch.nn as nn
import torch.optim as optim
from torch.optim import lr_scheduler

cudnn.benchmark = True
torch.manual_seed(5)


class Body(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU())
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        return self.fc(self.layers(x))


x = torch.randn(96, 6)
y = (x[:, 0] * x[:, 1] > 0).long()
dataloaders = {
    phase: torch.utils.data.DataLoader(torch.utils.data.TensorDataset(a, b), batch_size=16, shuffle=phase == "train")
    for phase, a, b in (("train", x[:64], y[:64]), ("val", x[64:], y[64:]))
}
dataset_sizes = {phase: len(loader.dataset) for phase, loader in dataloaders.items()}
print(dataset_sizes)


def train_model(model, criterion, optimizer, scheduler, num_epochs):
    best_model_wts = copy.deepcopy(model.state_dict())
    best_acc = 0.0
    for epoch in range(num_epochs):
        print(f"Epoch {epoch}/{num_epochs - 1}")
        print("-" * 10)
        for phase in ["train", "val"]:
            model.train(phase == "train")
            running_loss, running_corrects = 0.0, 0
            for inputs, labels in dataloaders[phase]:
                optimizer.zero_grad()
                with torch.set_grad_enabled(phase == "train"):
                    outputs = model(inputs)
                    _, preds = torch.max(outputs, 1)
                    loss = criterion(outputs, labels)
                    if phase == "train":
                        loss.backward()
                        optimizer.step()
                running_loss += loss.item() * inputs.size(0)
                running_corrects += torch.sum(preds == labels.data)
            if phase == "train":
                scheduler.step()
            epoch_loss = running_loss / dataset_sizes[phase]
            epoch_acc = running_corrects.double() / dataset_sizes[phase]
            print(f"{phase} Loss: {epoch_loss:.4f} Acc: {epoch_acc:.4f}")
            if phase == "val" and epoch_acc > best_acc:
                best_acc = epoch_acc
                best_model_wts = copy.deepcopy(model.state_dict())
        print()
    print(f"Best val Acc: {best_acc:4f}")
    model.load_state_dict(best_model_wts)
    return model


model_ft = Body()
num_ftrs = model_ft.fc.in_features
model_ft.fc = nn.Linear(num_ftrs, 2)
criterion = nn.CrossEntropyLoss()
optimizer_ft = optim.SGD(model_ft.parameters(), lr=0.05, momentum=0.9)
train_model(model_ft, criterion, optimizer_ft, lr_scheduler.StepLR(optimizer_ft, step_size=2, gamma=0.1), 3)
model_conv = Body()
for param in model_conv.parameters():
    param.requires_grad = False
model_conv.fc = nn.Linear(model_conv.fc.in_features, 2)
optimizer_conv = optim.SGD(model_conv.fc.parameters(), lr=0.05, momentum=0.9)
before = model_conv.layers[0].weight.clone()
train_model(model_conv, criterion, optimizer_conv, lr_scheduler.ExponentialLR(optimizer_conv, 0.9), 2)
print(
    torch.equal(before, model_conv.layers[0].weight), [n for n, p in model_conv.named_parameters() if p.requires_grad]
)
print(optimizer_conv)
