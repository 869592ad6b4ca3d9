// Package conformance is the table of tests that every way of shaping passes. It places instances in a fabric, asks for
// shapes, and measures from inside the instances what becomes of packets between them.
//
// What is drawn by lot is held against the interval in which it lies with a probability of 99.99 %. Of times only lower
// bounds are strict; upper ones are generous, since other programs may run on the same processors. What is wrong while
// many rows are measured side by side is measured again by itself, and is wrong when it is so three times more.
package conformance
