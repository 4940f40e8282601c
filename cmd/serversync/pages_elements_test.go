package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/dom"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// pagesPrelude are functions for the expressions of tests. They look into open
// shadow roots too.
const pagesPrelude = `
const roots = (root) => {
	const all = root.shadowRoot ? [root, ...roots(root.shadowRoot)] : [root];
	for (const e of root.querySelectorAll('*')) if (e.shadowRoot) all.push(...roots(e.shadowRoot));
	return all;
};
const deepAll = (selector, root = document) => roots(root).flatMap((r) => [...r.querySelectorAll(selector)]);
const contains = (outer, e) => { while (e && e !== outer) e = e.assignedSlot ?? e.parentNode ?? e.host; return !!e; };
const visible = (e) => e.checkVisibility({visibilityProperty: true}) && e.getClientRects().length > 0;
const deep = (selector, root = document) => { const all = deepAll(selector, root); return all.find(visible) ?? all[0] ?? null; };
const textOf = (node) => {
	const walk = (n) => {
		if (n.nodeType === Node.TEXT_NODE) return n.data.replace(/\s+/g, ' ');
		if (n.nodeType !== Node.ELEMENT_NODE && n.nodeType !== Node.DOCUMENT_FRAGMENT_NODE) return '';
		let children = n.childNodes;
		if (n.nodeType === Node.ELEMENT_NODE) {
			if (n.localName === 'br') return '\n';
			if (['script', 'style', 'template', 'noscript'].includes(n.localName)) return '';
			const display = getComputedStyle(n).display;
			if (display !== 'contents' && !n.checkVisibility({visibilityProperty: true})) return '';
			if (n.localName === 'select') children = n.selectedOptions;
			if (n.shadowRoot) children = n.shadowRoot.childNodes;
			if (n.localName === 'slot' && n.assignedNodes().length) children = n.assignedNodes();
			const text = [...children].map(walk).join('');
			if (display.startsWith('table-cell')) return text.trim() + '\t';
			return display.startsWith('inline') || display === 'contents' ? text : '\n' + text + '\n';
		}
		return [...children].map(walk).join('');
	};
	return walk(node).split('\n').map((line) => line.replace(/[ \t]+/g, ' ').trim()).filter(Boolean).join('\n');
};
`

// target names elements: a CSS selector, which finds what is in open shadow
// roots too, or what [byRole] gives.
type target string

// byRole names elements as assistive technology knows them, by role and
// accessible name. A * in the name stands for anything; a name of "" for any.
func byRole(role, name string) target { return target(rolePrefix + role + "[" + name + "]") }

// within names those elements of a target that are inside of an element.
func within(selector string, t target) target { return target(selector + insideOf + string(t)) }

const (
	rolePrefix = "role="
	insideOf   = " >> "
)

// find returns handles of the elements that a target names.
func (p *tab) find(t target) ([]runtime.RemoteObjectID, error) {
	outer, inner, nested := strings.Cut(string(t), insideOf)
	if !nested {
		inner, outer = outer, ""
	}
	role, isRole := strings.CutPrefix(inner, rolePrefix)
	if !isRole {
		root := "document"
		if nested {
			root = "(deep(" + strconv.Quote(outer) + ") ?? document.createElement('i'))"
		}
		return p.handles("deepAll(" + strconv.Quote(inner) + ", " + root + ")")
	}
	document, err := p.handles("[document]")
	if err != nil || len(document) == 0 {
		return nil, err
	}
	role, name, _ := strings.Cut(strings.TrimSuffix(role, "]"), "[")
	answer, err := command(p, accessibility.QueryAXTree, accessibility.QueryAXTreeParams{ObjectID: document[0], Role: role})
	if err != nil {
		return nil, err
	}
	pattern, err := regexp.Compile("^" + strings.ReplaceAll(regexp.QuoteMeta(name), `\*`, ".*") + "$")
	if err != nil {
		return nil, err
	}
	var all []runtime.RemoteObjectID
	for _, n := range answer.Nodes {
		if n.Ignored || n.BackendDOMNodeID == 0 || name != "" && !pattern.MatchString(strings.Join(strings.Fields(said(n.Name)), " ")) {
			continue
		}
		resolved, err := command(p, dom.ResolveNode, dom.ResolveNodeParams{BackendNodeID: n.BackendDOMNodeID})
		if err != nil {
			return nil, err
		}
		id := resolved.Object.ObjectID
		if nested {
			inside, err := p.ask(id, "(e) => contains(deep("+strconv.Quote(outer)+"), e)")
			if err != nil {
				return nil, err
			}
			if string(inside) != "true" {
				continue
			}
		}
		all = append(all, id)
	}
	return all, nil
}

// said is the text of a property of the accessibility tree.
func said(v *accessibility.Value) string {
	var text string
	if v == nil || json.Unmarshal(v.Value, &text) != nil {
		return ""
	}
	return text
}

// handles are those of the elements of an array.
func (p *tab) handles(array string) ([]runtime.RemoteObjectID, error) {
	id, err := p.context()
	if err != nil {
		return nil, err
	}
	answer, err := command(p, runtime.Evaluate, runtime.EvaluateParams{
		Expression: "(() => {" + pagesPrelude + "\nreturn " + array + " })()", UniqueContextID: id, Silent: new(true),
	})
	if err != nil {
		return nil, err
	}
	if e := answer.ExceptionDetails; e != nil {
		return nil, fmt.Errorf("%s %s", e.Text, words([]*runtime.RemoteObject{e.Exception}))
	}
	list, err := command(p, runtime.GetProperties, runtime.GetPropertiesParams{ObjectID: answer.Result.ObjectID, OwnProperties: new(true)})
	if err != nil {
		return nil, err
	}
	var all []runtime.RemoteObjectID
	for _, property := range list.Result {
		if property.Value != nil && property.Value.Subtype == "node" {
			all = append(all, property.Value.ObjectID)
		}
	}
	return all, nil
}

// ask calls a function of one element.
func (p *tab) ask(id runtime.RemoteObjectID, function string) (json.RawMessage, error) {
	answer, err := command(p, runtime.CallFunctionOn, runtime.CallFunctionOnParams{
		ObjectID: id, ReturnByValue: new(true), AwaitPromise: new(true), Silent: new(true),
		FunctionDeclaration: "async function () {" + pagesPrelude + "\nreturn (" + function + ")(this) }",
	})
	if err != nil {
		return nil, err
	}
	if e := answer.ExceptionDetails; e != nil {
		return nil, fmt.Errorf("%s %s", e.Text, words([]*runtime.RemoteObject{e.Exception}))
	}
	return json.RawMessage(answer.Result.Value), nil
}

// seen are the visible elements that a target names.
func (p *tab) seen(t target) ([]runtime.RemoteObjectID, error) {
	all, err := p.find(t)
	if err != nil {
		return nil, err
	}
	var shown []runtime.RemoteObjectID
	for _, id := range all {
		yes, err := p.ask(id, "visible")
		if err != nil {
			return nil, err
		}
		if string(yes) == "true" {
			shown = append(shown, id)
		}
	}
	return shown, nil
}

// count is how many visible elements a target names now.
func (p *tab) count(t target) int {
	p.Helper()
	all, err := p.seen(t)
	if err != nil {
		p.Fatalf("%s: %v", t, err)
	}
	return len(all)
}

// waitCount waits until a target names so many visible elements.
func (p *tab) waitCount(t target, n int) {
	p.Helper()
	p.await(fmt.Sprintf("%d of %s", n, t), func() error {
		all, err := p.seen(t)
		if err == nil && len(all) != n {
			err = fmt.Errorf("there are %d", len(all))
		}
		return err
	})
}

// text is what can be read in the one visible element that a target names: a
// line for each block, cells separated by spaces.
func (p *tab) text(t target) string {
	p.Helper()
	var text string
	p.about(t, "textOf", &text)
	return text
}

// attribute is one of an element; empty: it has none of the name.
func (p *tab) attribute(t target, name string) string {
	p.Helper()
	var value string
	p.about(t, "(e) => e.getAttribute("+strconv.Quote(name)+") ?? ''", &value)
	return value
}

// about calls a JavaScript function with the one visible element that a target
// names, and decodes what it returns.
func (p *tab) about(t target, function string, into any) {
	p.Helper()
	p.await(string(t), func() error {
		all, err := p.seen(t)
		if err != nil {
			return err
		}
		if len(all) != 1 {
			return fmt.Errorf("%d such elements are visible, not one", len(all))
		}
		value, err := p.ask(all[0], function)
		if err != nil || into == nil {
			return err
		}
		return json.Unmarshal(value, into)
	})
}

// waitText waits until what can be read in the visible elements that a target
// names holds a part; how it is broken into lines does not matter.
func (p *tab) waitText(t target, part string) {
	p.Helper()
	p.await(fmt.Sprintf("%q in %s", part, t), func() error {
		all, err := p.seen(t)
		if err != nil {
			return err
		}
		var texts []string
		for _, id := range all {
			value, err := p.ask(id, "textOf")
			if err != nil {
				return err
			}
			var text string
			if err := json.Unmarshal(value, &text); err != nil {
				return err
			}
			if strings.Contains(strings.Join(strings.Fields(text), " "), part) {
				return nil
			}
			texts = append(texts, text)
		}
		return fmt.Errorf("it says %q", texts)
	})
}

// click clicks into the middle of the one visible element that a target names,
// as a mouse does, once it is enabled, at rest and not covered.
func (p *tab) click(t target) {
	p.Helper()
	var x, y float64
	p.await("a click on "+string(t), func() error {
		all, err := p.seen(t)
		if err != nil {
			return err
		}
		if len(all) != 1 {
			return fmt.Errorf("%d such elements are visible, not one", len(all))
		}
		x, y, err = p.middle(all[0])
		return err
	})
	if err := p.run(chromedp.MouseClickXY(x, y)); err != nil {
		p.Fatalf("click on %s: %v", t, err)
	}
}

// middle is where an element can be clicked, in the window's pixels.
func (p *tab) middle(id runtime.RemoteObjectID) (x, y float64, err error) {
	if _, err := command(p, dom.ScrollIntoViewIfNeeded, dom.ScrollIntoViewIfNeededParams{ObjectID: id}); err != nil {
		return 0, 0, err
	}
	fault, err := p.ask(id, `async (e) => {
		if (e.matches(':disabled') || e.getAttribute('aria-disabled') === 'true') return 'it is disabled';
		const before = e.getBoundingClientRect();
		await new Promise(requestAnimationFrame);
		const r = e.getBoundingClientRect();
		if (before.x !== r.x || before.y !== r.y) return 'it moves';
		let hit = document.elementFromPoint(r.x + r.width / 2, r.y + r.height / 2);
		while (hit?.shadowRoot) {
			const inner = hit.shadowRoot.elementFromPoint(r.x + r.width / 2, r.y + r.height / 2);
			if (!inner || inner === hit) break;
			hit = inner;
		}
		if (hit && contains(e, hit)) return '';
		if (hit?.closest?.('label')?.control === e) return '';
		return 'it is covered by ' + (hit ? hit.outerHTML.slice(0, 200) : 'nothing that can be seen');
	}`)
	if err != nil {
		return 0, 0, err
	}
	if string(fault) != `""` {
		return 0, 0, errors.New(string(fault))
	}
	shape, err := command(p, dom.GetContentQuads, dom.GetContentQuadsParams{ObjectID: id})
	if err != nil {
		return 0, 0, err
	}
	// Of an element in several lines the first.
	if len(shape.Quads) == 0 || len(shape.Quads[0]) != 8 {
		return 0, 0, errors.New("it has no shape")
	}
	q := shape.Quads[0]
	return (q[0] + q[2] + q[4] + q[6]) / 4, (q[1] + q[3] + q[5] + q[7]) / 4, nil
}

// keys are the names of those that have no sign of their own.
var keys = map[string]string{
	"Tab": kb.Tab, "Enter": kb.Enter, "Escape": kb.Escape, "Space": " ", "Backspace": kb.Backspace, "Delete": kb.Delete,
	"ArrowUp": kb.ArrowUp, "ArrowDown": kb.ArrowDown, "ArrowLeft": kb.ArrowLeft, "ArrowRight": kb.ArrowRight,
	"Home": kb.Home, "End": kb.End, "PageUp": kb.PageUp, "PageDown": kb.PageDown,
}

var modifiers = map[string]chromedp.Modifier{
	"Shift": chromedp.ModifierShift, "Control": chromedp.ModifierCtrl, "Alt": chromedp.ModifierAlt,
}

// press presses a key: "Enter", "a", "Shift+Tab", "Control+a".
func (p *tab) press(key string) {
	p.Helper()
	var held []chromedp.Modifier
	for {
		modifier, rest, found := strings.Cut(key, "+")
		m, known := modifiers[modifier]
		if !found || !known {
			break
		}
		held, key = append(held, m), rest
	}
	code, known := keys[key]
	if !known {
		code = key
	}
	if len([]rune(code)) != 1 {
		p.Fatalf("there is no key %q", key)
	}
	if err := p.run(chromedp.KeyEvent(code, chromedp.KeyModifiers(held...))); err != nil {
		p.Fatalf("press %s: %v", key, err)
	}
}

// fill replaces what is in a field.
func (p *tab) fill(t target, text string) {
	p.Helper()
	p.about(t, "(e) => { e.focus(); e.select(); return true }", nil)
	if text == "" {
		p.press("Delete")
		return
	}
	if _, err := command(p, input.InsertText, input.InsertTextParams{Text: text}); err != nil {
		p.Fatalf("fill %s: %v", t, err)
	}
}

// choose takes the option of a select that has a label, as a person does.
func (p *tab) choose(t target, label string) {
	p.Helper()
	p.about(t, `(e) => {
		const option = [...e.options].find((o) => o.label.trim() === `+strconv.Quote(label)+`);
		if (!option) throw new Error('there is no such option, but: ' + [...e.options].map((o) => o.label).join(', '));
		option.selected = true;
		e.dispatchEvent(new Event('input', {bubbles: true, composed: true}));
		e.dispatchEvent(new Event('change', {bubbles: true}));
		return true;
	}`, nil)
}

// focused is the role and the accessible name of what has the focus, as
// `button "Sync now"`; empty: nothing in particular.
func (p *tab) focused() string {
	p.Helper()
	all, err := p.handles(`(() => {
		let e = document.activeElement;
		while (e?.shadowRoot?.activeElement) e = e.shadowRoot.activeElement;
		return e && e !== document.body ? [e] : [];
	})()`)
	if err != nil {
		p.Fatalf("what has the focus: %v", err)
	}
	if len(all) == 0 {
		return ""
	}
	answer, err := command(p, accessibility.GetPartialAXTree, accessibility.GetPartialAXTreeParams{ObjectID: all[0], FetchRelatives: new(false)})
	if err != nil || len(answer.Nodes) == 0 {
		p.Fatalf("what has the focus: %v", err)
	}
	return fmt.Sprintf("%s %q", said(answer.Nodes[0].Role), said(answer.Nodes[0].Name))
}

// run does something with the tab.
func (p *tab) run(action chromedp.Action[chromedp.Void]) error {
	ctx, cancel := context.WithTimeout(p.ctx, pagesPatience)
	defer cancel()
	return chromedp.Do(ctx, action)
}
