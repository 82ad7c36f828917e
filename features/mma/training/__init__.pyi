from .objective import Objective as Objective
from .sampling import Batch as Batch
from .sampling import Mixture as Mixture
from .trainer import Trainer as Trainer
