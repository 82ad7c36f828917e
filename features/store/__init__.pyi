from .check import check_store as check_store
from .reader import Store as Store
from .reader import open_store as open_store
from .records import StoreSettings as StoreSettings
from .records import VideoRecord as VideoRecord
from .writer import StoreWriter as StoreWriter
