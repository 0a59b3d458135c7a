package caddymodule

import (
	"bufio"
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// importRow is one key of the input, as the wire wants it. It holds a
// credential: no error shows it.
type importRow struct {
	line int // of the input, where it begins
	body json.RawMessage
}

// importRows reads the input row by row; io.EOF after the last.
type importRows interface {
	next() (importRow, error)
}

// importRows judges the input by its first byte, unless it is told.
func (s *session) importRows(in io.Reader) (importRows, error) {
	b := bufio.NewReaderSize(in, 64<<10)
	if mark, err := b.Peek(3); err == nil && string(mark) == "\xef\xbb\xbf" { // spreadsheets write it
		_, _ = b.Discard(len(mark))
	}
	first, err := b.Peek(1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading standard input: %w", err)
	}
	format := s.text("input-format")
	switch {
	case len(first) == 0:
		return nil, usagef("standard input is empty")
	case format == "" && first[0] == '{':
		format = "jsonl"
	case format == "" && first[0] == '[':
		return nil, usagef("standard input is one JSON array: make lines of it, as jq -c '.[]' does")
	case format == "":
		format = "csv"
	}
	switch format {
	case "csv":
		return s.newCSVRows(b)
	case "jsonl":
		return newJSONRows(b), nil
	default:
		return nil, usagef("--input-format: must be csv or jsonl")
	}
}

// importColumns are the members of a key to import, with what a cell of CSV
// makes of each.
var importColumns = map[string]func(cell string) (any, error){
	"credential": cellText, "sha256": cellText, "name": cellText, "organization": cellText, "type": cellText,
	"scopes": cellWords, "permissions": cellWords, "networks": cellWords, "limit": cellText,
	"metadata": cellObject, "expires_at": cellText, "expires_in_days": cellNumber,
}

func cellText(cell string) (any, error) { return cell, nil }

func cellWords(cell string) (any, error) { return strings.Fields(cell), nil }

func cellObject(cell string) (any, error) {
	if !json.Valid([]byte(cell)) || !strings.HasPrefix(strings.TrimSpace(cell), "{") {
		return nil, errors.New(`must be a JSON object such as {"team":"blue"}`)
	}
	return json.RawMessage(cell), nil
}

func cellNumber(cell string) (any, error) {
	n, err := strconv.Atoi(cell)
	if err != nil {
		return nil, errors.New("must be a whole number")
	}
	return n, nil
}

// checkMembers refuses a name that is no column. A line without any credential
// is no line of names, but may be one of credentials: nothing of it is shown.
func checkMembers(line int, names []string) error {
	if !slices.Contains(names, "credential") && !slices.Contains(names, "sha256") {
		return &lineError{line, "credential", "is required, or sha256", exitUsage}
	}
	for n, name := range names {
		if importColumns[name] == nil {
			return &lineError{line, name, "is unknown; there are " + strings.Join(slices.Sorted(maps.Keys(importColumns)), ", "), exitUsage}
		}
		if slices.Contains(names[:n], name) {
			return &lineError{line, name, "is there twice", exitUsage}
		}
	}
	return nil
}

// csvRows reads CSV (RFC 4180) with a line of names.
type csvRows struct {
	*session
	in      *csv.Reader
	bound   *boundedReader
	columns []string
	line    int // of the last record
}

func (s *session) newCSVRows(in io.Reader) (*csvRows, error) {
	bound := &boundedReader{in: in}
	r := &csvRows{session: s, in: csv.NewReader(bound), bound: bound}
	r.in.ReuseRecord = true
	names, err := r.record()
	if errors.Is(err, io.EOF) {
		return nil, usagef("standard input is empty")
	}
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		r.columns = append(r.columns, strings.TrimSpace(name))
	}
	if err := checkMembers(1, r.columns); err != nil {
		return nil, err
	}
	return r, nil
}

func (r *csvRows) next() (importRow, error) {
	cells, err := r.record()
	if err != nil {
		return importRow{}, err
	}
	key := map[string]any{}
	for n, cell := range cells {
		name := r.columns[n]
		if cell == "" {
			continue
		}
		if !utf8.ValidString(cell) {
			return importRow{}, &lineError{r.line, name, "is not UTF-8", exitUsage}
		}
		if key[name], err = importColumns[name](cell); err != nil {
			return importRow{}, &lineError{r.line, name, err.Error(), exitUsage}
		}
	}
	if err := r.nameIDs(key); err != nil {
		return importRow{}, err
	}
	body, err := json.Marshal(key)
	if err != nil {
		return importRow{}, &lineError{r.line, "", "cannot be encoded", exitUsage}
	}
	return checkedRow(r.line, body)
}

// record reads one line's cells, valid until the next. Its errors do not show
// what is there.
func (r *csvRows) record() ([]string, error) {
	r.bound.left = maxImportInput
	cells, err := r.in.Read()
	parse, broken := errors.AsType[*csv.ParseError](err)
	switch {
	case errors.Is(err, csv.ErrFieldCount):
		return nil, &lineError{parse.StartLine, "", fmt.Sprintf("has %d cells, and the first line has %d", len(cells), len(r.columns)), exitUsage}
	case broken:
		return nil, &lineError{parse.StartLine, "", "is no CSV: " + parse.Err.Error(), exitUsage}
	case errors.Is(err, errRowTooLong):
		return nil, tooLarge(r.line + 1)
	case err != nil && !errors.Is(err, io.EOF):
		return nil, fmt.Errorf("reading standard input: %w", err)
	}
	if err == nil {
		r.line, _ = r.in.FieldPos(0)
	}
	return cells, err
}

// nameIDs replaces the names of permissions by their ids.
func (r *csvRows) nameIDs(key map[string]any) error {
	words, _ := key["permissions"].([]string)
	organization, _ := key["organization"].(string)
	for n, word := range words {
		if strings.HasPrefix(word, permissionID) {
			continue
		}
		if organization == "" {
			own, err := r.ownOrganization()
			if err != nil {
				return err
			}
			organization = own
		}
		id, err := r.permissionID("permissions", word, organization)
		if err != nil {
			return fmt.Errorf("line %d: %w", r.line, err)
		}
		words[n] = id
	}
	return nil
}

// jsonRows reads JSON lines. What a line says goes to the server as it stands:
// two readers must not understand it differently.
type jsonRows struct {
	in   *bufio.Scanner
	line int
}

func newJSONRows(in io.Reader) *jsonRows {
	r := &jsonRows{in: bufio.NewScanner(in)}
	r.in.Buffer(make([]byte, 64<<10), maxImportInput)
	return r
}

func (r *jsonRows) next() (importRow, error) {
	for r.in.Scan() {
		r.line++
		text := bytes.TrimSpace(r.in.Bytes())
		if len(text) == 0 {
			continue
		}
		if !utf8.Valid(text) {
			return importRow{}, &lineError{r.line, "", "is not UTF-8", exitUsage}
		}
		var object map[string]json.RawMessage
		if json.Unmarshal(text, &object) != nil || object == nil {
			return importRow{}, &lineError{r.line, "", "is not one JSON object", exitUsage}
		}
		if err := checkMembers(r.line, slices.Sorted(maps.Keys(object))); err != nil {
			return importRow{}, err
		}
		return checkedRow(r.line, bytes.Clone(text))
	}
	if errors.Is(r.in.Err(), bufio.ErrTooLong) {
		return importRow{}, tooLarge(r.line + 1)
	}
	if err := r.in.Err(); err != nil {
		return importRow{}, fmt.Errorf("reading standard input after line %d: %w", r.line, err)
	}
	return importRow{}, io.EOF
}

// checkedRow refuses what no call could carry.
func checkedRow(line int, body []byte) (importRow, error) {
	row := importRow{line, body}
	if !new(importBatch).fits(row) {
		return importRow{}, tooLarge(line)
	}
	return row, nil
}

func tooLarge(line int) error {
	return &lineError{line, "", "is larger than a body may be, 1 MiB; is a quote left open?", exitUsage}
}

// maxImportInput bounds what is read for one row, in whatever spelling: an open
// quote would else swallow all that follows.
const maxImportInput = 4 << 20

var errRowTooLong = errors.New("row is too long")

// boundedReader reads about as much as is left.
type boundedReader struct {
	in   io.Reader
	left int
}

func (b *boundedReader) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errRowTooLong
	}
	n, err := b.in.Read(p)
	b.left -= n
	return n, err
}
