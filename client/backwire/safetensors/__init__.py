"""Safetensors: parameters out of files that Hugging Face and PyTorch write, and into files that they read.

import backwire.safetensors

backwire.safetensors.load_into(session, "model.safetensors", rename={"encoder/weight": "bert.encoder.weight"})
...
backwire.safetensors.save(session, "trained.safetensors")

Only parameters travel; `Session.save` has all of a session. Needs the extra `safetensors`, and is imported by its full
name, so that `import backwire` does without.
"""

try:
    import safetensors as _safetensors  # noqa: F401 - whether it is there
except ImportError:
    raise ImportError(
        "backwire.safetensors needs the safetensors package; install it with: pip install 'backwire[safetensors]'"
    ) from None

from backwire.safetensors._files import Loaded, load_into, save

__all__ = ["Loaded", "load_into", "save"]
