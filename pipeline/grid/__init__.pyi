from .ablate import AblateResult as AblateResult
from .grid import train_grid as train_grid
from .options import AblateOptions as AblateOptions
from .options import SweepOptions as SweepOptions
from .sweep import SweepResult as SweepResult
