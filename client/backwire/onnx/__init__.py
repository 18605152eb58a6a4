"""ONNX in, ONNX out: models that PyTorch, TensorFlow, JAX and scikit-learn export are trained here and written back.

import backwire as bw
import backwire.onnx

model = backwire.onnx.load("classifier.onnx", frozen="encoder.*")
labels = bw.input("labels", ("batch",), dtype="int64")
loss = bw.softmax_cross_entropy(model.value("logits"), labels)
graph = bw.graph(loss=loss, outputs={"logits": model.value("logits")})

session = client.create_session(graph, optimizer=bw.Adam(1e-4))
...
backwire.onnx.save(session, "trained.onnx")

Needs the extra `onnx`, and is imported by its full name, so that `import backwire` does without.
"""

try:
    import onnx as _onnx  # noqa: F401 - whether it is there
except ImportError:
    raise ImportError("backwire.onnx needs the onnx package; install it with: pip install 'backwire[onnx]'") from None

from backwire.onnx._load import load
from backwire.onnx._save import save

__all__ = ["load", "save"]
