from .devices import pick_device as pick_device
from .errors import FeieError as FeieError
from .errors import UsageError as UsageError
from .schema import AFFECT as AFFECT
from .schema import Schema as Schema
