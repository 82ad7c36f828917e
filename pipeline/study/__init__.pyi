from .compare import CompareResult as CompareResult
from .cross_validate import CrossValidateResult as CrossValidateResult
from .folds import Fold as Fold
from .folds import make_folds as make_folds
from .options import CompareOptions as CompareOptions
from .options import CrossValidateOptions as CrossValidateOptions
