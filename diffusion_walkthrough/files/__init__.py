"""Files: written whole or not at all, and read without trust."""

import zipfile
import zlib

#: What NumPy raises for a file that is no .npz of plain arrays, or a damaged one.
UNREADABLE_NPZ = (
    ValueError,
    OSError,
    EOFError,
    MemoryError,
    KeyError,
    zipfile.BadZipFile,
    zlib.error,
    RuntimeError,  # a password, or (NotImplementedError) a strange compression
    TypeError,
)
