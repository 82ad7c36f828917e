from .arrays import ArraysFormat as ArraysFormat
from .table_format import TableFormat as TableFormat
from .table_format import video_name as video_name
