"""Tools around training. See https://docs.pytorch.org/docs/stable/data.html for `graphtorch.utils.data`."""
