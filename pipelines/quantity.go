package pipelines

import (
	"cmp"
	"fmt"
	"math"
	"math/bits"
	"reflect"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
)

// quantity is a duration, size, bandwidth or share inside an expression. Adding, comparing and scaling keep the unit, so
// that nothing without one can get where one is needed.
type quantity struct {
	kind kind
	n    int64   // nanoseconds, bytes, bits per second
	f    float64 // of a share
}

var quantityTypes = map[kind]*cel.Type{
	kindDuration:  cel.OpaqueType(string(kindDuration)),
	kindSize:      cel.OpaqueType(string(kindSize)),
	kindBandwidth: cel.OpaqueType(string(kindBandwidth)),
	kindShare:     cel.OpaqueType(string(kindShare)),
}

// quantityKinds lists the keys of quantityTypes in a fixed order.
var quantityKinds = []kind{kindDuration, kindSize, kindBandwidth, kindShare}

// native gives the Go value.
func (q quantity) native() any {
	switch q.kind {
	case kindDuration:
		return Duration(q.n)
	case kindSize:
		return Size(q.n)
	case kindBandwidth:
		return Bandwidth(q.n)
	}
	return Share(q.f)
}

// toCEL turns a value of the language into one of CEL.
func toCEL(v any) ref.Val {
	switch v := v.(type) {
	case bool:
		return types.Bool(v)
	case int64:
		return types.Int(v)
	case int:
		return types.Int(v)
	case float64:
		return types.Double(v)
	case string:
		return types.String(v)
	case Duration:
		return quantity{kind: kindDuration, n: int64(v)}
	case Size:
		return quantity{kind: kindSize, n: int64(v)}
	case Bandwidth:
		return quantity{kind: kindBandwidth, n: int64(v)}
	case Share:
		return quantity{kind: kindShare, f: float64(v)}
	}
	return types.NewErr("no value of this language: %T", v)
}

// ConvertToNative implements ref.Val.
func (q quantity) ConvertToNative(t reflect.Type) (any, error) {
	v := reflect.ValueOf(q.native())
	if v.Type().AssignableTo(t) {
		return v.Interface(), nil
	}
	return nil, fmt.Errorf("a %s can't become a %v", q.kind, t)
}

// ConvertToType implements ref.Val.
func (q quantity) ConvertToType(t ref.Type) ref.Val {
	return types.NewErr("a %s can't become a %s", q.kind, t.TypeName())
}

// Equal implements ref.Val.
func (q quantity) Equal(other ref.Val) ref.Val {
	o, ok := other.(quantity)
	return types.Bool(ok && q == o)
}

// Type implements ref.Val.
func (q quantity) Type() ref.Type { return quantityTypes[q.kind] }

// Value implements ref.Val.
func (q quantity) Value() any { return q.native() }

// number gives the value in the base unit: seconds, bytes, bits per second, 1.
func (q quantity) number() float64 {
	switch q.kind {
	case kindDuration:
		return float64(q.n) / 1e9
	case kindShare:
		return q.f
	}
	return float64(q.n)
}

// with returns a quantity of the same kind, or an error when it is out of range.
func (q quantity) with(f float64) ref.Val {
	if q.kind == kindShare {
		if f < -1 || f > 1 || math.IsNaN(f) {
			return types.NewErr("the share %s is outside of 0%% to 100%%", Share(f))
		}
		return quantity{kind: q.kind, f: f}
	}
	if math.IsNaN(f) || math.Abs(f) >= 1<<63 {
		return types.NewErr("a %s out of range", q.kind)
	}
	return quantity{kind: q.kind, n: int64(math.Round(f))}
}

// scale multiplies by a factor. Whole factors stay exact.
func (q quantity) scale(factor ref.Val) ref.Val {
	i, whole := factor.(types.Int)
	if !whole {
		f, _ := factor.(types.Double)
		if q.kind == kindShare {
			return q.with(q.f * float64(f))
		}
		return q.with(float64(q.n) * float64(f))
	}
	if q.kind == kindShare {
		return q.with(q.f * float64(i))
	}
	high, low := bits.Mul64(magnitude(q.n), magnitude(int64(i)))
	if high != 0 || low > math.MaxInt64 {
		return types.NewErr("a %s out of range", q.kind)
	}
	return quantity{kind: q.kind, n: q.n * int64(i)}
}

func magnitude(n int64) uint64 {
	if n < 0 {
		return -uint64(n)
	}
	return uint64(n)
}

// divide divides by a number, or by a quantity of the same kind to get their ratio.
func (q quantity) divide(by ref.Val) ref.Val {
	switch by := by.(type) {
	case quantity:
		if by.number() == 0 {
			return types.NewErr("division by zero")
		}
		return types.Double(q.number() / by.number())
	case types.Int:
		if by == 0 {
			return types.NewErr("division by zero")
		}
		if q.kind == kindShare {
			return q.with(q.f / float64(by))
		}
		return quantity{kind: q.kind, n: q.n / int64(by)}
	case types.Double:
		if by == 0 {
			return types.NewErr("division by zero")
		}
		if q.kind == kindShare {
			return q.with(q.f / float64(by))
		}
		return q.with(float64(q.n) / float64(by))
	}
	return types.NewErr("no such division")
}

// plus adds sign times other.
func (q quantity) plus(other quantity, sign int64) ref.Val {
	if q.kind == kindShare {
		return q.with(q.f + float64(sign)*other.f)
	}
	sum := q.n + sign*other.n
	if (sum > q.n) != (sign*other.n > 0) && other.n != 0 {
		return types.NewErr("a %s out of range", q.kind)
	}
	return quantity{kind: q.kind, n: sum}
}

func (q quantity) compare(other quantity) int {
	return cmp.Or(cmp.Compare(q.n, other.n), cmp.Compare(q.f, other.f))
}
