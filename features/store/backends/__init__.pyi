from .lease import Lease as Lease
from .location import is_url as is_url
from .location import open_root as open_root
from .lock import WriterLock as WriterLock
