from .base import HeadModel as HeadModel
from .compound import compound_scores as compound_scores
from .frame_va import FrameVA as FrameVA
from .mrnn import MRNN as MRNN
from .stat import Stat as Stat
