from .checkpoint import load_head as load_head
from .checkpoint import save_head as save_head
from .fusion import fuse as fuse
from .run import Run as Run
from .run import load_run as load_run
