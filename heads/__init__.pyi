from .data.labels import load_labels as load_labels
from .head import Head as Head
from .runs.checkpoint import load_head as load_head
from .runs.checkpoint import save_head as save_head
