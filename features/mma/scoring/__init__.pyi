from .metrics import concordance as concordance
from .metrics import macro_f1 as macro_f1
from .scores import score_pack as score_pack
