"""How long will the answer be? Learned from a fleet's own log, from the wording of requests alone.

Source: Sundaresan, Clairvoyant: Predictive SJF Scheduling to Mitigate Head-of-Line Blocking in Serial LLM
Backends, arXiv:2606.07248.
"""

from millrace.predictor.document import Document, read_document, write_document
from millrace.predictor.prediction import Predictor
from millrace.predictor.quality import Quality

__all__ = ["Document", "Predictor", "Quality", "read_document", "write_document"]
