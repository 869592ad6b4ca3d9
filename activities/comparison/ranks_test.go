package comparison

import (
	"math"
	"math/rand/v2"
	"testing"
)

func near(a, b, by float64) bool { return math.Abs(a-b) <= by*max(1, math.Abs(b)) }

// TestMannWhitney holds the test against values from the tables of Mann and Whitney and from other implementations of it.
func TestMannWhitney(t *testing.T) {
	for name, c := range map[string]struct {
		a, b []float64
		u, p float64
	}{
		"nothing":            {nil, []float64{1}, 0, 1},
		"apart, 3 and 3":     {[]float64{1, 2, 3}, []float64{4, 5, 6}, 9, 2.0 / 20},
		"apart, 5 and 5":     {[]float64{1, 2, 3, 4, 5}, []float64{6, 7, 8, 9, 10}, 25, 2.0 / 252},
		"the other way":      {[]float64{6, 7, 8, 9, 10}, []float64{1, 2, 3, 4, 5}, 0, 2.0 / 252},
		"one of them inside": {[]float64{1, 2, 4}, []float64{3, 5, 6}, 8, 4.0 / 20},
		"all the same":       {[]float64{1, 1, 1}, []float64{1, 1}, 3, 1},
		"ties":               {[]float64{1, 2, 2, 3}, []float64{2, 3, 4, 5}, 13.5, 0.13666},
	} {
		u, p := MannWhitney(c.a, c.b)
		if u != c.u || !near(p, c.p, 1e-3) {
			t.Errorf("%s: U %v, p %v; want %v, %v", name, u, p, c.u, c.p)
		}
	}
}

// TestArrangements checks that all orders are counted: their number is a binomial coefficient.
func TestArrangements(t *testing.T) {
	sum := 0.0
	for _, w := range arrangements(6, 9) {
		sum += w
	}
	if sum != 5005 {
		t.Errorf("6 of 15 have %v orders, want 5005", sum)
	}
}

func TestShift(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	a, b := make([]float64, 2000), make([]float64, 1500)
	for i := range a {
		a[i] = 100 + random.NormFloat64()*10
	}
	for i := range b {
		b[i] = 107 + random.NormFloat64()*10
	}
	shift, low, high := Shift(a, b, 0.05)
	if !near(shift, 7, 0.15) || low > shift || high < shift || low > 7 || high < 7 {
		t.Errorf("a shift of 7 was found as %v (%v to %v)", shift, low, high)
	}
	if one, _, _ := Shift([]float64{1}, []float64{4}, 0.05); one != 3 {
		t.Errorf("from 1 to 4 is %v", one)
	}
	u, _ := MannWhitney(a, b)
	if d := Delta(u, len(a), len(b)); d < 0.3 || d > 0.45 {
		t.Errorf("Cliff's delta is %v", d)
	}
}

// TestStudent holds the distribution against its tables.
func TestStudent(t *testing.T) {
	for _, c := range []struct{ t, freedom, p float64 }{
		{12.706, 1, 0.05}, {4.303, 2, 0.05}, {2.262, 9, 0.05}, {3.250, 9, 0.01}, {2.861, 19, 0.01}, {1.96, 1e6, 0.05}, {0, 5, 1},
	} {
		if p := student(c.t, c.freedom); !near(p, c.p, 2e-4) {
			t.Errorf("t %v with %v degrees of freedom: p %v, want %v", c.t, c.freedom, p, c.p)
		}
	}
}

func TestPredict(t *testing.T) {
	for name, c := range map[string]struct {
		earlier []float64
		next    float64
		from    float64
		to      float64
	}{
		"too few":           {[]float64{1, 1}, 9, 1, 1},
		"as ever":           {[]float64{10, 11, 9, 10, 10.5}, 10.2, 0.5, 1},
		"far out":           {[]float64{10, 11, 9, 10, 10.5}, 20, 0, 0.01},
		"a counter moved":   {[]float64{7, 7, 7}, 8, 0, 0},
		"a counter did not": {[]float64{7, 7, 7}, 7, 1, 1},
		"with a zero":       {[]float64{0, 1, 2}, 1, 1, 1},
	} {
		if p := Predict(c.earlier, c.next); p < c.from || p > c.to {
			t.Errorf("%s: p %v, want %v to %v", name, p, c.from, c.to)
		}
	}
}
