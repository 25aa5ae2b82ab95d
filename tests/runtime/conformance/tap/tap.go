// Package tap prints the Test Anything Protocol (version 13). It has the few verbs that the validation programs of
// runtime-tools call; Debian packages no library of that name.
package tap

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing/quick"
)

// T numbers the test points of one program.
type T struct {
	next *int // shared with the T that Todo returns
	todo bool
}

func New() *T {
	first := 1
	return &T{next: &first}
}

// Header starts the stream; with a positive count the plan comes first.
func (t *T) Header(count int) {
	fmt.Println("TAP version 13")
	if count > 0 {
		fmt.Printf("1..%d\n", count)
	}
}

// AutoPlan ends a stream that began without a plan.
func (t *T) AutoPlan() { fmt.Printf("1..%d\n", *t.next-1) }

func (t *T) point(ok bool, description string) {
	word := "ok"
	if !ok {
		word = "not ok"
	}
	if t.todo {
		description = "# TODO " + description
	}
	fmt.Printf("%s %d - %s\n", word, *t.next, strings.ReplaceAll(description, "\n", " "))
	*t.next++
}

func (t *T) Ok(test bool, description string) { t.point(test, description) }
func (t *T) Pass(description string)          { t.point(true, description) }
func (t *T) Fail(description string)          { t.point(false, description) }

// Skip counts as passed, with the reason shown.
func (t *T) Skip(count int, description string) {
	for i := 0; i < count; i++ {
		t.point(true, "# SKIP "+description)
	}
}

// Todo gives a T whose points are expected to fail; the numbering is shared.
func (t *T) Todo() *T { return &T{next: t.next, todo: true} }

// Check tests a property with random values.
func (t *T) Check(function interface{}, description string) {
	t.point(quick.Check(function, nil) == nil, description)
}

func (t *T) Diagnostic(message string) {
	for _, line := range strings.Split(strings.TrimRight(message, "\n"), "\n") {
		fmt.Println("# " + line)
	}
}

func (t *T) Diagnosticf(format string, values ...interface{}) {
	t.Diagnostic(fmt.Sprintf(format, values...))
}

// YAML attaches a value to the point before it, as JSON, which is YAML too.
func (t *T) YAML(message interface{}) error {
	text, err := json.MarshalIndent(message, "  ", "  ")
	if err != nil {
		return err
	}
	fmt.Printf("  ---\n  %s\n  ...\n", text)
	return nil
}
