package virtfusionsim

import (
	"fmt"
	"net/http"
)

// misprint answers with a page that does not add up.
func misprint(page func(b *bite, asked pageRequest) object) spoil {
	return func(b *bite, w http.ResponseWriter, r *http.Request) {
		if asked, ok := askedPage(w, r); ok {
			reply(w, http.StatusOK, page(b, asked))
		}
	}
}

// firstPage is page 1, whichever was asked for, with another to follow.
func (b *bite) firstPage(asked pageRequest) object {
	asked.number = 1
	page := b.panel.page(asked)
	if page["next_page_url"] == nil {
		page["last_page"], page["last_page_url"], page["next_page_url"] = 2, asked.link(2), asked.link(2)
	}
	return page
}

// onePageMore is the page that was asked for, with another to follow.
func (b *bite) onePageMore(asked pageRequest) object {
	return followed(b.panel.page(asked), asked)
}

// followed says that there is one page more than was asked for.
func followed(page object, asked pageRequest) object {
	next := asked.number + 1
	page["last_page"], page["total"] = next, next*asked.perPage
	page["last_page_url"], page["next_page_url"] = asked.link(next), asked.link(next)
	return page
}

// inventedPage is the page that was asked for, or, past the last one, a page of
// servers that there are not; with another to follow.
func (b *bite) inventedPage(asked pageRequest) object {
	page := b.panel.page(asked)
	if rows, ok := page["data"].([]object); ok && len(rows) > 0 {
		return followed(page, asked)
	}
	first := int64(asked.number) * int64(asked.perPage)
	invented := b.panel.invented(1_000_000+first, asked.perPage)
	page = invented.page(pageRequest{full: asked.full, perPage: asked.perPage, number: 1, address: asked.address})
	page["current_page"], page["prev_page_url"] = asked.number, asked.link(asked.number-1)
	page["from"], page["to"] = first+1-int64(asked.perPage), first
	return followed(page, asked)
}

// invented returns a panel with n servers that there are not, whose ids begin
// at first.
func (p *Panel) invented(first int64, n int) *Panel {
	other := p.bare()
	now := other.now()
	for id := first; id < first+int64(n); id++ {
		server := &Server{
			ID: id, UUID: fmt.Sprintf("00000000-0000-4000-8000-%012d", id), OwnerID: other.userAfter(0),
			Name: fmt.Sprintf("invented-%d", id), State: "running", CommissionStatus: 3,
			MemoryMB: 1024, StorageGB: 20, CPUCores: 1, Created: now, Updated: now, Built: now,
		}
		other.servers.put(id, server)
	}
	return other
}

// lessInAll is the page that was asked for, with fewer servers in all each time.
func (b *bite) lessInAll(asked pageRequest) object {
	page := b.panel.page(asked)
	total, _ := page["total"].(int)
	total = max(0, total-b.number)
	last := pages(total, asked.perPage)
	page["total"], page["last_page"], page["last_page_url"] = total, last, asked.link(last)
	if asked.number >= last {
		page["next_page_url"] = nil
	}
	return page
}

// halfAPage is the page that was asked for, without the second half of its rows.
func (b *bite) halfAPage(asked pageRequest) object {
	page := b.panel.page(asked)
	if rows, ok := page["data"].([]object); ok {
		page["data"] = rows[:len(rows)/2]
	}
	return page
}
