import time, sys
sys.path.insert(0,"/work/main/tests")
import test_solve as T, numpy as np
def run():
    for kw in ({}, {"tol":1e-5}, {"linear_solver":"cg"}, {"linear_solver":"cg","tol":1e-4}):
        t=time.process_time(); s=T.SMALL.solve(**kw); print(kw, s.n_iter, time.process_time()-t, flush=True)
def test_a(): run()
if __name__=="__main__": run()
