package selector

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// An Error says where a selector is malformed.
type Error struct {
	Column int    // of the character at fault, the first being 1
	Msg    string // what was expected and what stands there
	Input  string // the whole selector
}

// errorContext is how many characters Error.Error shows on each side of the fault.
const errorContext = 40

// Error returns one line: the column, the message, and the selector with » at
// the column. A long selector is cut down to what stands around it.
func (e *Error) Error() string {
	return fmt.Sprintf("selector column %d: %s, at » in: %s", e.Column, e.Msg, e.excerpt())
}

func (e *Error) excerpt() string {
	runes := []rune(e.Input)
	at := min(max(e.Column-1, 0), len(runes))
	from, to := max(0, at-errorContext), min(len(runes), at+errorContext)
	text := visible(runes[from:at]) + "»" + visible(runes[at:to])
	if from > 0 {
		text = "…" + text
	}
	if to < len(runes) {
		text += "…"
	}
	return text
}

// visible puts a space for each character that would break or garble a line.
func visible(runes []rune) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return ' '
	}, string(runes))
}

// column turns a byte offset into a column.
func column(input string, offset int) int {
	return utf8.RuneCountInString(input[:offset]) + 1
}
