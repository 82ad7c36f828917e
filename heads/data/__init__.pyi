from .dataset import VideoDataset as VideoDataset
from .dataset import VideoItem as VideoItem
from .labels import Labels as Labels
from .labels import load_labels as load_labels
from .loader import VideoBatch as VideoBatch
from .ragged import Ragged as Ragged
