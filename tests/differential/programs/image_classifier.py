"""The CIFAR classifier on synthetic images: data, network, training, per-class accuracy, saving."""

import io

import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.optim as optim

torch.manual_seed(0)
classes = ("plane", "car", "bird", "cat")
centers = torch.randn(4, 3, 12, 12)
labels = torch.randint(0, 4, (160,))
images = centers[labels] + 0.8 * torch.randn(160, 3, 12, 12)
mean, std = images.mean((0, 2, 3)), images.std((0, 2, 3))
print(mean, std)
images = (images - mean[:, None, None]) / std[:, None, None]
trainset = torch.utils.data.TensorDataset(images[:128], labels[:128])
trainloader = torch.utils.data.DataLoader(trainset, batch_size=16, shuffle=True, num_workers=0)
testset = torch.utils.data.TensorDataset(images[128:], labels[128:])
testloader = torch.utils.data.DataLoader(testset, batch_size=16, shuffle=False)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3)
        self.pool = nn.MaxPool2d(2, 2)
        self.conv2 = nn.Conv2d(6, 8, 2)
        self.fc1 = nn.Linear(8 * 2 * 2, 24)
        self.fc2 = nn.Linear(24, 4)

    def forward(self, x):
        x = self.pool(F.relu(self.conv1(x)))
        x = self.pool(F.relu(self.conv2(x)))
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        return self.fc2(x)


net = Net()
criterion = nn.CrossEntropyLoss()
optimizer = optim.SGD(net.parameters(), lr=0.02, momentum=0.9)
for epoch in range(3):
    running_loss = 0.0
    for i, data in enumerate(trainloader, 0):
        inputs, targets = data
        optimizer.zero_grad()
        outputs = net(inputs)
        loss = criterion(outputs, targets)
        loss.backward()
        optimizer.step()
        running_loss += loss.item()
        if i % 4 == 3:
            print(f"[{epoch + 1}, {i + 1:5d}] loss: {running_loss / 4:.3f}")
            running_loss = 0.0
print("Finished Training")
buffer = io.BytesIO()
torch.save(net.state_dict(), buffer)
buffer.seek(0)
net = Net()
print(net.load_state_dict(torch.load(buffer, weights_only=True)))
images, targets = next(iter(testloader))
print("GroundTruth: ", " ".join(f"{classes[targets[j]]:5s}" for j in range(4)))
outputs = net(images)
_, predicted = torch.max(outputs, 1)
print("Predicted: ", " ".join(f"{classes[predicted[j]]:5s}" for j in range(4)))
correct = total = 0
correct_pred = dict.fromkeys(classes, 0)
total_pred = dict.fromkeys(classes, 0)
with torch.no_grad():
    for images, targets in testloader:
        outputs = net(images)
        _, predictions = torch.max(outputs.data, 1)
        total += targets.size(0)
        correct += (predictions == targets).sum().item()
        for target, prediction in zip(targets, predictions):
            if target == prediction:
                correct_pred[classes[target]] += 1
            total_pred[classes[target]] += 1
print(f"Accuracy of the network on the {total} test images: {100 * correct // total} %")
for classname, correct_count in correct_pred.items():
    accuracy = 100 * float(correct_count) / total_pred[classname]
    print(f"Accuracy for class: {classname:5s} is {accuracy:.1f} %")
device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
print(device)
net.to(device)
confusion = torch.zeros(4, 4, dtype=torch.int64)
for t, p in zip(targets, predictions):
    confusion[t, p] += 1
print(confusion)
