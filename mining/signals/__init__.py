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
``top_mean``               mean of the k largest values by frame
``edge_std_px``            RMS of the edges' standard deviations; ``edge_std_relative``        Li et al. 2020 (DFL)
                           as a share of the box
-------------------------  ----------------------------------------------------------  -----------------------------------
expected (one frame, one detector; s scores, t operating threshold)
-------------------------------------------------------------------------------------------------------------------------
``expected_errors``        missed = sum of s < t; false = sum of 1 - s over s >= t;    expectation of a Bernoulli sum
                           rate = (missed + false) / (sum of s + 1)
-------------------------  ----------------------------------------------------------  -----------------------------------
consensus (one frame, first member judged by all; p an object's mean P(real | score) over the members that can know it)
-------------------------------------------------------------------------------------------------------------------------
``committee_errors``       missed = sum of p, not reported by the first; false =       votes as probabilities (this project)
                           sum of 1 - p, reported; rate = both / (sum of p + 1)
-------------------------  ----------------------------------------------------------  -----------------------------------
calibration (one detector, labels given)
-------------------------------------------------------------------------------------------------------------------------
``ScoreCalibration``       P(real | s) = sigmoid(logit(s) / T + b); without labels     Guo et al. 2017; Platt 1999
                           1/2 at the threshold, T = 1
``class_difficulty``       mean of 1 - p^0.6 u^0.4 over a class's objects; weight      PPAL, Yang et al. 2024
                           1 + 0.06 ln(1 + (e^(1/0.3) - 1) d)
-------------------------  ----------------------------------------------------------  -----------------------------------
disagreement (one object of a committee; boxes matched by ``mining.boxes.match_committee``)
-------------------------------------------------------------------------------------------------------------------------
``presence_entropy``       binary entropy of the mean vote; a vote is 0 up to t/3,     Dagan & Engelson 1995, votes graded
                           1/2 at t, 1 from 5t/3 on
``jensen_shannon``         H(mean q) - mean H(q), over classes that all members see    Lin 1991; equals mutual information
``box_spread``             1 - mean pairwise IoU; RMS distance of edges from the mean
-------------------------  ----------------------------------------------------------  -----------------------------------
temporal (one detector, one recording; boxes linked from frame to frame one to one, m the median count around)
-------------------------------------------------------------------------------------------------------------------------
``find_gaps``              objects without a kept box, kept just before and after:     Bengar et al. 2019, in its simplest
                           vanished (no candidate left) or dipped (one left)           form
``class_flipped``          class differs from the object's box one frame aside
``box_jitter``             RMS over edges of e(t) - e interpolated, / sqrt(area)
``count_change``           |count - m| / sqrt(m + 1)
-------------------------  ----------------------------------------------------------  -----------------------------------
quality (one image)
-------------------------------------------------------------------------------------------------------------------------
``measure_quality``        mean luma; variance of the Laplacian; share of luma >= 250  Pech-Pacheco et al. 2000
``difference_hash``        64 signs of brightness steps; ``hamming`` counts bits       Krawetz 2013 (dHash)
``compare_with_previous``  repeats: equal hash, luma, sharpness and histogram; cuts:
                           20 bits and 15 % of the histogram differ
=========================  ==========================================================  ===================================
"""
