from .file import open_reader as open_reader
from .reader import Frame as Frame
from .reader import Reader as Reader
from .sources import Source as Source
from .sources import discover as discover
