from .reader import Described as Described
from .reader import FolderFormat as FolderFormat
from .reader import OneFileFormat as OneFileFormat
