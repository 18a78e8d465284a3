"""CUDA devices.

driver.py     what is asked of a driver, and which one there is: cuda.core's, or a simulated one
core.py       the driver of real devices, through cuda.core
simulated.py  devices that lie in this process, for tests: their memory can't be read by the host, their kernels are
              Python functions
devices.py    the devices of this process, and which one is current
memory.py     the caching allocator
streams.py    streams and events, and which stream is current
transfer.py   bytes from and to the host, and between devices
"""
