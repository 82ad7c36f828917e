from .routing import RoutedAdam as RoutedAdam
from .stacked import train_stacked as train_stacked
from .trainer import Trainer as Trainer
