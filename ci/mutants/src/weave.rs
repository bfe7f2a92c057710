//! Puts many mutants into one source: each becomes a branch that is taken only when the process is told its
//! number, so that all of them are compiled once.

use std::collections::HashMap;
use std::ops::Range;

use anyhow::{Context, Result};
use proc_macro2::{LineColumn, Span};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Arm, BinOp, Block, Expr, ExprBinary, ExprStruct, ExprUnary, UnOp};

use crate::list::Mutant;

/// A source with mutants in it.
#[derive(Default)]
pub struct Woven {
    pub text: String,
    /// Where a mutant's own words stand in `text`, in bytes.
    pub words: Vec<(Range<usize>, usize)>,
    /// Mutants that have a place in the text.
    pub placed: Vec<usize>,
}

/// Weaves `mutants` (of one file) into `source`.
///
/// # Errors
/// The source is no Rust.
pub fn weave(source: &str, mutants: &[&Mutant]) -> Result<Woven> {
    let file = syn::parse_file(source).context("parsing")?;
    let lines = Lines::of(source);
    let mut at = HashMap::<usize, Vec<&Mutant>>::new();
    for mutant in mutants {
        let start = lines.offset(mutant.span.start.line, mutant.span.start.column - 1);
        at.entry(start).or_default().push(mutant);
    }
    let mut weaver = Weaver { source, lines, at, edits: Vec::new(), placed: Vec::new() };
    weaver.visit_file(&file);
    Ok(weaver.written())
}

/// Byte offsets of a text's lines.
struct Lines<'a>(Vec<(usize, &'a str)>);

impl<'a> Lines<'a> {
    fn of(source: &'a str) -> Self {
        let mut start = 0;
        let of = |line: &'a str| {
            let here = start;
            start += line.len();
            (here, line)
        };
        Self(source.split_inclusive('\n').map(of).collect())
    }

    /// `line` from 1, `column` from 0 and in characters.
    fn offset(&self, line: usize, column: usize) -> usize {
        let Some((start, text)) = self.0.get(line - 1) else { return usize::MAX };
        start + text.chars().take(column).map(char::len_utf8).sum::<usize>()
    }

    fn range(&self, span: Span) -> Range<usize> {
        let of = |place: LineColumn| self.offset(place.line, place.column);
        of(span.start())..of(span.end())
    }
}

/// One insertion, or a replacement of `over`.
struct Edit {
    over: Range<usize>,
    text: String,
    mutant: Option<usize>,
    /// Closes what an edit before it has opened: inner ones come first.
    closes: bool,
}

struct Weaver<'a> {
    source: &'a str,
    lines: Lines<'a>,
    at: HashMap<usize, Vec<&'a Mutant>>,
    edits: Vec<Edit>,
    placed: Vec<usize>,
}

impl<'a> Weaver<'a> {
    fn of(&self, genre: &str, start: usize) -> Vec<&'a Mutant> {
        let all = self.at.get(&start).into_iter().flatten();
        all.filter(|mutant| mutant.genre == genre).copied().collect()
    }

    fn text(&self, span: Span) -> &'a str {
        &self.source[self.lines.range(span)]
    }

    fn open(&mut self, at: usize, text: impl Into<String>, mutant: Option<usize>) {
        self.replace(at..at, text, mutant);
    }

    fn close(&mut self, at: usize, text: impl Into<String>, mutant: Option<usize>) {
        self.edits.push(Edit { over: at..at, text: text.into(), mutant, closes: true });
    }

    fn replace(&mut self, over: Range<usize>, text: impl Into<String>, mutant: Option<usize>) {
        self.edits.push(Edit { over, text: text.into(), mutant, closes: false });
    }

    fn binary(&mut self, node: &ExprBinary) {
        let operator = self.lines.range(node.op.span());
        let mutants = self.of("BinaryOperator", operator.start);
        if mutants.is_empty() || has_let(&node.left) || has_let(&node.right) {
            return;
        }
        let (whole, left, right) =
            (self.lines.range(node.span()), self.lines.range(node.left.span()), self.lines.range(node.right.span()));
        let numbers: Vec<usize> = mutants.iter().map(|mutant| mutant.number).collect();
        let first = Some(numbers[0]);
        match &node.op {
            BinOp::And(_) | BinOp::Or(_) => {
                let not = if matches!(node.op, BinOp::Or(_)) { "!" } else { "" };
                self.open(whole.start, "({ let l_: bool = (", first);
                let middle = format!("); let m_ = {not}{}; if l_ == m_ {{ m_ }} else {{ ", active(numbers[0]));
                self.replace(operator, middle, first);
                self.close(whole.end, " } })", first);
                self.placed.push(numbers[0]);
            }
            BinOp::Eq(_) | BinOp::Ne(_) => {
                self.open(whole.start, format!("({} ^ (", active(numbers[0])), first);
                self.close(whole.end, "))", first);
                self.placed.push(numbers[0]);
            }
            BinOp::AddAssign(_)
            | BinOp::SubAssign(_)
            | BinOp::MulAssign(_)
            | BinOp::DivAssign(_)
            | BinOp::RemAssign(_)
            | BinOp::BitXorAssign(_)
            | BinOp::BitAndAssign(_)
            | BinOp::BitOrAssign(_)
            | BinOp::ShlAssign(_)
            | BinOp::ShrAssign(_) => {
                let place = &self.source[left];
                let token = &self.source[operator];
                self.replace(whole.start..right.start, "{ let r_ = (", first);
                let mut end = "); ".to_owned();
                for mutant in &mutants {
                    end += &format!("if {} {{ {place} {} r_; }} else ", active(mutant.number), mutant.replacement);
                }
                self.close(whole.end, format!("{end}{{ {place} {token} r_; }} }}"), first);
                self.placed.extend(&numbers);
            }
            _ => {
                let token = self.source[operator.clone()].to_owned();
                let compares = matches!(node.op, BinOp::Lt(_) | BinOp::Le(_) | BinOp::Gt(_) | BinOp::Ge(_));
                let by = if compares { "&" } else { "" };
                self.open(whole.start, format!("({{ let (l_, r_) = ({by}("), first);
                self.replace(operator, format!("), {by}("), first);
                self.close(whole.end, format!(")); {} {{ l_ {token} r_ }} }})", alternatives(&mutants)), first);
                self.placed.extend(&numbers);
            }
        }
    }

    fn written(mut self) -> Woven {
        // At one place what closes comes first, the innermost before the outer ones; then what opens, the
        // outermost first, which is the order of the visit.
        let mut edits: Vec<(usize, Edit)> = std::mem::take(&mut self.edits).into_iter().enumerate().collect();
        edits.sort_by_key(|(order, edit)| {
            let order = i64::try_from(*order).unwrap_or(i64::MAX);
            (edit.over.start, !edit.closes, if edit.closes { -order } else { order })
        });
        let mut woven = Woven { placed: self.placed, ..Woven::default() };
        let mut from = 0;
        for (_, edit) in edits {
            woven.text += &self.source[from..edit.over.start];
            let start = woven.text.len();
            woven.text += &edit.text;
            woven.words.extend(edit.mutant.map(|mutant| (start..woven.text.len(), mutant)));
            from = edit.over.end;
        }
        woven.text += &self.source[from..];
        woven
    }
}

impl<'ast> Visit<'ast> for Weaver<'_> {
    fn visit_block(&mut self, block: &'ast Block) {
        if let Some(first) = block.stmts.first() {
            let start = self.lines.range(first.span()).start;
            let open = self.lines.range(block.brace_token.span.open()).end;
            for mutant in self.of("FnValue", start) {
                let text = format!(" if {} {{ return {}; }}", active(mutant.number), mutant.replacement);
                self.open(open, text, Some(mutant.number));
                self.placed.push(mutant.number);
            }
        }
        visit::visit_block(self, block);
    }

    fn visit_expr_binary(&mut self, node: &'ast ExprBinary) {
        self.binary(node);
        visit::visit_expr_binary(self, node);
    }

    fn visit_expr_unary(&mut self, node: &'ast ExprUnary) {
        let whole = self.lines.range(node.span());
        if let (UnOp::Not(_), Some(mutant)) = (&node.op, self.of("UnaryOperator", whole.start).first()) {
            self.open(whole.start, format!("({} ^ (", active(mutant.number)), Some(mutant.number));
            self.close(whole.end, "))", Some(mutant.number));
            self.placed.push(mutant.number);
        }
        visit::visit_expr_unary(self, node);
    }

    fn visit_arm(&mut self, arm: &'ast Arm) {
        let deleted = self.of("MatchArm", self.lines.range(arm.span()).start);
        let unless: String = deleted.iter().map(|mutant| format!("!{} && ", active(mutant.number))).collect();
        let first = deleted.first().map(|mutant| mutant.number);
        match &arm.guard {
            Some((_, guard)) if !has_let(guard) => {
                let place = self.lines.range(guard.span());
                let always = self.of("MatchArmGuard", place.start);
                let of = |value: &str| always.iter().find(|m| m.replacement == value).map(|m| m.number);
                let (on, off) = (of("true"), of("false"));
                let on = on.map(|n| format!("{} || ", active(n))).unwrap_or_default();
                let not = off.map(|n| format!("!{} && ", active(n))).unwrap_or_default();
                let own = always.first().map(|m| m.number).or(first);
                self.open(place.start, format!("{unless}{not}({on}("), own);
                self.close(place.end, "))", own);
                self.placed.extend(always.iter().map(|m| m.number));
                self.placed.extend(first);
            }
            None if !unless.is_empty() => {
                let end = self.lines.range(arm.pat.span()).end;
                self.close(end, format!(" if {}", unless.trim_end_matches(" && ")), first);
                self.placed.extend(first);
            }
            _ => {}
        }
        visit::visit_arm(self, arm);
    }

    fn visit_expr_struct(&mut self, node: &'ast ExprStruct) {
        if let Some(rest) = &node.rest {
            let rest = self.text(rest.span());
            for field in &node.fields {
                let start = self.lines.range(field.span()).start;
                let Some(number) = self.of("StructField", start).first().map(|mutant| mutant.number) else { continue };
                let name = self.text(field.member.span());
                let value = self.lines.range(field.expr.span());
                let colon = if field.colon_token.is_some() { String::new() } else { format!("{name}: ") };
                self.open(
                    value.start,
                    format!("{colon}if {} {{ ({rest}).{name} }} else {{ ", active(number)),
                    Some(number),
                );
                self.close(value.end, " }", Some(number));
                self.placed.push(number);
            }
        }
        visit::visit_expr_struct(self, node);
    }
}

/// Whether `let` stands where a condition could be: such an expression cannot be put into brackets.
fn has_let(expr: &Expr) -> bool {
    match expr {
        Expr::Let(_) => true,
        Expr::Binary(node) => has_let(&node.left) || has_let(&node.right),
        _ => false,
    }
}

fn active(mutant: usize) -> String {
    format!("crate::mutant({mutant})")
}

fn alternatives(mutants: &[&Mutant]) -> String {
    let of = |m: &&Mutant| format!("if {} {{ l_ {} r_ }} else", active(m.number), m.replacement);
    mutants.iter().map(of).collect::<Vec<_>>().join(" ")
}
