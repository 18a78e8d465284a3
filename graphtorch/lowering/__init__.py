"""From kernels to something that runs: the Kernel and its printer, the registry of backends, and a folder a backend."""
