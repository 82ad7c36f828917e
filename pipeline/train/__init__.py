"""`feie train-head`: options, data, the run and its log; fusion of several stores."""
