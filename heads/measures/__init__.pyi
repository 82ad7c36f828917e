from .baselines import LengthBaseline as LengthBaseline
from .losses import ccc_loss as ccc_loss
from .losses import mse_loss as mse_loss
from .losses import pearson_loss as pearson_loss
from .metrics import Scores as Scores
from .metrics import score as score
