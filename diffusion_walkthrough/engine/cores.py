"""Several cores: each takes its share of the images through the whole network.

TensorFlow divides every single operation among the cores, and all of them wait for the last one a
thousand times a step. Where images are small, much of the time is waiting. A batch can be divided
once instead: every core takes its images from the first layer to the last and back again,
and only the gradients are added up. That is :class:`SideBySide`; it pays once an operation stays on
one core, which :func:`keep_operations_on_one_core` asks TensorFlow for.

All cores also ask for memory and give it back, thousands of times a step. With bad luck the
system's allocator returns the same memory to the system each time, which hands it out again filled
with zeros: :func:`keep_freed_memory` asks it to wait.

On a GPU, and on JAX and PyTorch, none of this changes anything.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable
from typing import Any

import keras

#: More shares than this would hold too many copies of the gradients.
MOST_SHARES = 4

#: What the GNU C library's allocator is told (``mallopt``, by the numbers of its malloc.h): how
#: many free bytes a heap keeps at its end, from how many free bytes on the rest is given back, and
#: from which size on a block is asked of the system by itself. The first is the whole of one of
#: its heaps, the last the most that it would come to by itself. A choice of one of the three ends
#: its own adjusting of all, so that all are chosen.
KEPT_MEMORY = {-2: 64 * 2**20, -1: 256 * 2**20, -3: 32 * 2**20}


def core_count() -> int:
    """Count the cores that this process may use."""
    with contextlib.suppress(AttributeError):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def keep_operations_on_one_core() -> None:
    """Tell TensorFlow to divide no operation among cores that take a share of the batch each.

    It has to be told before its first operation, and concerns all that it does in this process; a
    program that works with large single images does better without. ``TF_NUM_INTRAOP_THREADS`` in
    the environment, or ``tf.config.threading`` called earlier, take precedence.
    """
    if not _on_cores() or "TF_NUM_INTRAOP_THREADS" in os.environ:
        return
    import tensorflow as tf

    threading = tf.config.threading
    if threading.get_intra_op_parallelism_threads() == 0:  # nobody has chosen yet
        with contextlib.suppress(RuntimeError):  # TensorFlow is at work already
            cores = core_count()
            threading.set_intra_op_parallelism_threads(max(cores // MOST_SHARES, 1))


def keep_freed_memory() -> None:
    """Tell the allocator of the GNU C library to keep freed memory for what comes next.

    Otherwise it depends on where the last small block happens to lie whether a step gives back
    hundreds of megabytes and gets them anew: the same step then takes more than twice as long. What
    is chosen in the environment (``MALLOC_…_``, ``GLIBC_TUNABLES``) takes precedence; other systems
    and C libraries are left alone.
    """
    chosen = any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ)
    if chosen or not _on_cores() or not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(AttributeError, OSError):  # another C library, without mallopt
        tell = ctypes.CDLL(None).mallopt
        for parameter, number in KEPT_MEMORY.items():
            tell(parameter, number)


def prepare_processor() -> None:
    """Ask TensorFlow and the allocator for what makes work on several cores fast."""
    keep_operations_on_one_core()
    keep_freed_memory()


def share_count() -> int:
    """In how many shares a batch is worked on, one for each core, at most ``MOST_SHARES``.

    Of several replicas (``tf.distribute``) each has its own.
    """
    if not _on_cores():
        return 1
    import tensorflow as tf

    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    return min(max(core_count() // replicas, 1), MOST_SHARES)


def has_accelerator() -> bool:
    """Whether the backend computes on a graphics card, or anything else with memory of its own."""
    backend = keras.backend.backend()
    if backend == "jax":
        import jax

        return jax.default_backend() != "cpu"
    if backend == "torch":
        import torch

        return torch.cuda.is_available()
    return not _on_cores()


class SideBySide:
    """Work on a batch that is done by all cores, each on its share.

    The results are those of the work done in one piece, but for rounding and for numbers drawn on
    the way, such as dropout's. What comes of an image must not depend on the others in the batch.
    """

    def __init__(self, work: Callable[..., Any], random: bool = False) -> None:
        """Remember the work: a function from tensors, each ``(batch, …)``, to one more.

        ``random`` says that it draws numbers on the way. TensorFlow lets functions that do so wait
        for each other: each share is then written down apart.
        """
        self.work, self.random = work, random
        self._written_down: dict[Any, Callable[..., Any]] = {}

    def __call__(self, *batch: Any, **options: Any) -> Any:
        """Do it: ``work(*batch, **options)``.

        Args:
            *batch: tensors, each ``(batch, …)``.
            **options: plain values, the same for every share.
        """
        shares = share_count()
        if shares == 1:
            return self.work(*batch, **options)
        import tensorflow as tf

        if not tf.is_symbolic_tensor(batch[0]):  # done at once, a share after the other
            return self.work(*batch, **options)
        # All shares are of one length, which few batches are a multiple of: the last ones begin
        # early enough to be whole, and what they answer a second time is left out.
        work = self._divisible(options)
        n = tf.shape(batch[0])[0]
        length = (n + shares - 1) // shares
        results = []
        for i in range(shares):
            start = tf.minimum(i * length, n - length)
            result = work(*(tensor[start : start + length] for tensor in batch))
            results.append(result[tf.minimum(i * length - start, length) :])
        return tf.concat(results, axis=0)

    def _divisible(self, options: dict[str, Any]) -> Callable[..., Any]:
        """The work as a function that is written down once, however many shares there are."""
        import tensorflow as tf

        def work(*batch: Any) -> Any:
            return self.work(*batch, **options)

        if self.random or tf.distribute.has_strategy():  # each replica has weights of its own
            return work
        key = tuple(sorted(options.items()))
        if key not in self._written_down:
            self._written_down[key] = tf.function(work, autograph=False, reduce_retracing=True)
        return self._written_down[key]


def side_by_side(network: keras.Model) -> SideBySide:
    """Let the cores share the batches of a network, ``(*inputs, training=…)``."""
    # Dropout's generators have states, which are variables but not weights.
    random = len(network.variables) > len(network.weights)
    return SideBySide(lambda *shown, **options: network(list(shown), **options), random)


def _on_cores() -> bool:
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.config.list_physical_devices("GPU")
