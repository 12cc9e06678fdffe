"""What a network does with its weights, told from what another one of as many weights does."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import keras

# Settings of layers on which no answer depends.
_PASSED_OVER = {"name", "trainable", "seed", "build_config", "shared_object_id"}


def structure(network: keras.Model) -> list[str] | None:
    """Describe each layer of a functional network, and what it is given; None for another network.

    Two networks of one structure answer alike, once they have the same weights. The numbers that
    Keras puts behind the names of layers without weights do not count.
    """
    if not hasattr(network, "inputs") or not hasattr(network, "operations"):
        return None
    try:
        layers = network.get_config()["layers"]
        named = {layer.name for layer in network.layers if layer.weights}
        known: dict[str, str] = {}
        for layer in layers:  # each after those that it is given the answers of
            name = layer["name"]
            own = [name if name in named else "", layer["class_name"], _plain(layer, known)]
            known[name] = hashlib.sha256(json.dumps(own, default=str).encode()).hexdigest()
    except (NotImplementedError, KeyError, TypeError):  # a network that is put together otherwise
        return None
    return sorted(known.values())


def _plain(part: Any, known: dict[str, str]) -> Any:
    """A configuration without what does not count; layers are called by what is known of them."""
    if isinstance(part, dict):
        counting = {
            key: value
            for key, value in part.items()
            if key not in _PASSED_OVER and not key.endswith("_initializer")
        }
        if "keras_history" in counting:
            name, *place = counting["keras_history"]
            counting["keras_history"] = [known[name], *place]
        return {key: _plain(value, known) for key, value in counting.items()}
    return [_plain(value, known) for value in part] if isinstance(part, (list, tuple)) else part
