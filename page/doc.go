// Package page is the live page of `groundplan dev`: runs and suites, one run as it goes, what its instances write, and
// buttons to cancel it, resume it and decide about a hold.
//
// Everything that moves comes as server-sent events: one stream per open page. What a stream tells is looked at once for
// all its readers, by a feed that ends when the last reader has left: a reader has a place in the feed's short memory of
// messages, not a queue of its own, so that a slow one holds nothing up and costs nothing. Who was away for longer than the
// memory lasts is told everything anew.
//
// # The page's own API
//
// It is for the page and changes with it; programs use the commands with --output json.
//
//	GET  /                             the list of runs              (documents, scripts and styles: package's static)
//	GET  /runs/{id}                    one run
//	GET  /runs/{id}/report.html        its report                    (package report)
//	GET  /suites, /suites/{name}       the suites, one suite
//	GET  /suites/{name}/report.html    its report
//	GET  /static/{file}
//
//	GET  /api/hello                    {token, temporal, home}: the token goes with every POST
//	GET  /api/runs/stream              reset · rows {set, gone} · note
//	GET  /api/runs/{id}/stream         reset · head · stages · outcomes · events · metrics · network · ready
//	GET  /api/runs/{id}/outcomes       ?stage=: outcomes of one stage as the stream tells them
//	GET  /api/runs/{id}/instance       ?stage=&group=&index=: what became of an instance, from stages/<stage>.jsonl
//	GET  /api/runs/{id}/files          ?group=&index=: the files of an instance's outputs
//	GET  /api/runs/{id}/log            ?group=&index=&file=[&before=N|&after=N]: at most 64 KiB of a file, by default its end
//	GET  /api/suites/stream            reset · suite · gone · note
//	GET  /api/suites/{name}/stream     the same of one suite, with a longer history
//	POST /api/runs/{id}/cancel|resume|decide     bodies: {} · {from} · {action, stage}
//	POST /api/suites/{name}/trigger|pause|unpause     bodies: {} · {note} · {}
//
// A stream is resumed by Last-Event-ID, or by ?last= where a page opened it anew. An error is {"error": "one sentence"}.
//
// # Who may
//
// The door (internal/door) lets in who has the key that `groundplan dev` printed. What changes something is a POST from the
// page's own origin with the token of /api/hello. Nothing is loaded from elsewhere, no script stands in a document, and
// names and lines, which are hostile, become text and never markup.
package page
