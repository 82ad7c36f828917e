from .choose import running_engine as running_engine
from .options import ExtractOptions as ExtractOptions
from .protocol import Engine as Engine
from .protocol import Finished as Finished
from .protocol import Provenance as Provenance
