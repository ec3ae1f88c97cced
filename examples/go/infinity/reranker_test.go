package infinity

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"reflect"
	"strings"
	"testing"
)

var documents = []string{"Rust is a language.", "Cats sleep on sofas.", "A dog runs."}

// answering gives the endpoint of a server with one answer, and where the last body sent to it is kept.
func answering(t *testing.T, status int, answer string) (string, *string) {
	t.Helper()
	sent := new(string)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		*sent = r.Header.Get("Authorization") + " " + string(body)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(server.Close)
	return server.URL + "/rerank", sent
}

func reranked(t *testing.T, documents []string, options ...Option) ([]Result, error) {
	t.Helper()
	reranker, err := New(options...)
	if err != nil {
		t.Fatal(err)
	}
	return reranker.Rerank(context.Background(), "Where do cats sleep?", documents)
}

func TestWhatIsSent(t *testing.T) {
	for want, options := range map[string][]Option{
		` {"query":"Where do cats sleep?","documents":["a"],"top_n":-1}`:                      nil,
		` {"query":"Where do cats sleep?","documents":["a"]}`:                                 {WithTopN(0)},
		`Bearer key {"model":"m","query":"Where do cats sleep?","documents":["a"],"top_n":2}`: {WithTopN(2), WithModel("m"), WithAPIKey("key")},
	} {
		endpoint, sent := answering(t, 200, `{"results": []}`)
		if _, err := reranked(t, []string{"a"}, append(options, WithEndpoint(endpoint))...); err != nil {
			t.Fatal(err)
		}
		if *sent != want {
			t.Errorf("sent %s\nwant %s", *sent, want)
		}
	}
}

func TestWhatIsRead(t *testing.T) {
	endpoint, _ := answering(t, 200, `{"object": "rerank", "results": [
		{"index": 2, "relevance_score": 0.25}, {"index": 7, "relevance_score": 1}, {"index": 1, "relevance_score": 0.75, "document": null}
	]}`)
	want := []Result{{1, 0.75, "Cats sleep on sofas."}, {2, 0.25, "A dog runs."}}
	for topN, want := range map[int][]Result{-1: want, 0: want, 1: want[:1], 9: want} {
		if got, err := reranked(t, documents, WithEndpoint(endpoint), WithTopN(topN)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("top %d: got %v, %v; want %v", topN, got, err, want)
		}
	}
}

func TestNoDocuments(t *testing.T) {
	if got, err := reranked(t, nil, WithEndpoint("http://localhost:1")); err != nil || len(got) != 0 {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestErrors(t *testing.T) {
	if _, err := New(); err == nil || err.Error() != "infinity endpoint cannot be empty" {
		t.Errorf("no endpoint: %v", err)
	}
	broken, _ := answering(t, 200, `[{"index": 0, "score": 1}]`)
	busy, _ := answering(t, 429, `{"error": "full"}`)
	for endpoint, want := range map[string]string{
		"://":                "create request: ",
		"http://localhost:1": "do request: ",
		broken:               "decode response: ",
		busy:                 `status 429: {"error": "full"}`,
	} {
		if _, err := reranked(t, documents, WithEndpoint(endpoint)); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: got %v; want %s", endpoint, err, want)
		}
	}
}

func TestMessage(t *testing.T) {
	for body, want := range map[string]string{
		`{"error": {"message": "no such model", "code": null}}`: "no such model",
		`{"error": "full", "error_type": "overloaded"}`:         "full",
		`{"message": "no", "error": {"type": "x"}}`:             "no",
		`{"detail": "Unauthorized"}`:                            "Unauthorized",
		`{"detail": [{"msg": "missing"}]}`:                      `{"detail": [{"msg": "missing"}]}`,
		"<html>Bad Gateway</html>":                              "<html>Bad Gateway</html>",
		"":                                                      "",
	} {
		if got := (&StatusError{502, body}).Message(); got != want {
			t.Errorf("%s: got %q", body, got)
		}
	}
}

// TestLive asks the server at INFINITY_URL, which wants the key in INFINITY_TOKEN.
func TestLive(t *testing.T) {
	endpoint, key := os.Getenv("INFINITY_URL"), os.Getenv("INFINITY_TOKEN")
	if endpoint == "" || key == "" {
		t.Skip("INFINITY_URL and INFINITY_TOKEN name no server")
	}
	with := func(options ...Option) []Option {
		return append([]Option{WithEndpoint(endpoint), WithAPIKey(key)}, options...)
	}
	all, err := reranked(t, append(documents, ""), with()...)
	if err != nil || len(all) != len(documents)+1 {
		t.Fatalf("with an empty document: got %v, %v", all, err)
	}
	for topN, count := range map[int]int{-1: 3, 0: 3, 2: 2, 9: 3} {
		got, err := reranked(t, documents, with(WithTopN(topN))...)
		if err != nil || len(got) != count {
			t.Errorf("top %d: got %v, %v", topN, got, err)
		}
		for i := 1; i < len(got); i++ {
			if got[i].Score > got[i-1].Score {
				t.Errorf("top %d is not in order: %v", topN, got)
			}
		}
	}
	for _, wrong := range []string{"", "not-the-key"} {
		if _, err := reranked(t, documents, with(WithAPIKey(wrong))...); err == nil || !strings.HasPrefix(err.Error(), "status 401: {") {
			t.Errorf("key %q: %v", wrong, err)
		}
	}
}
