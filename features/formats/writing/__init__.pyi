from .format import DumpFormat as DumpFormat
from .format import Folder as Folder
from .format import OneFile as OneFile
from .format import dump_format as dump_format
from .plan import DumpPlan as DumpPlan
