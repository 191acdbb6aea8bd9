"""Signals: numbers that say how much a frame, a box or an object is worth a labeler's time. Pure functions on arrays.

A night is one call: the boxes of many frames lie flat, and ``frame`` tells which frame each belongs to. High means hard.
A value that cannot be computed is NaN (NULL in the tables), never 0.

=========================  ==========================================================  ===================================
function                   formula                                                     source
=========================  ==========================================================  ===================================
uncertainty (one box, one detector; p its class vector, p1 >= p2 its two best scores)
-------------------------------------------------------------------------------------------------------------------------
``least_confidence``       1 - p1                                                      Settles 2009
``margin``                 1 - (p1 - p2)                                               Scheffer et al. 2001; Settles 2009
``entropy``                -sum q ln q, q = p / sum p                                  Shannon 1948; Settles 2009
``bernoulli_entropy``      sum -p ln p - (1 - p) ln(1 - p)                             the same, class by class
``aggregate``              max, mean, sum and count by frame
-------------------------  ----------------------------------------------------------  -----------------------------------
expected (one frame, one detector; s scores, t operating threshold)
-------------------------------------------------------------------------------------------------------------------------
``expected_errors``        missed = sum of s < t; false = sum of 1 - s over s >= t;    expectation of a Bernoulli sum
                           rate = (missed + false) / (sum of s + 0.5)
-------------------------  ----------------------------------------------------------  -----------------------------------
disagreement (one object of a committee; boxes matched by ``mining.boxes.match_committee``)
-------------------------------------------------------------------------------------------------------------------------
``presence_entropy``       binary entropy of the mean vote; a vote is 0 up to t/3,     Dagan & Engelson 1995, votes graded
                           1/2 at t, 1 from 5t/3 on
``jensen_shannon``         H(mean q) - mean H(q), over classes that all members see    Lin 1991; equals mutual information
``box_spread``             1 - mean pairwise IoU; RMS distance of edges from the mean
-------------------------  ----------------------------------------------------------  -----------------------------------
quality (one image)
-------------------------------------------------------------------------------------------------------------------------
``measure_quality``        mean luma; variance of the Laplacian; share of luma >= 250  Pech-Pacheco et al. 2000
``difference_hash``        64 signs of brightness steps; ``hamming`` counts bits       Krawetz 2013 (dHash)
=========================  ==========================================================  ===================================
"""
