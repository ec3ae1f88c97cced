// Package infinity reranks documents by the /rerank endpoint of a Lemni, Infinity or Hugging Face server.
//
// It needs nothing but the standard library. A call is one request; there are no retries.
package infinity

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"sort"
	"time"
)

const (
	defaultTopN    = -1
	defaultTimeout = 30 * time.Second
)

// Result is a document with its relevance to the query.
type Result struct {
	Index    int // its place in the list that was given
	Score    float64
	Document string
}

// Reranker is safe for concurrent use.
type Reranker struct {
	endpoint string
	model    string
	apiKey   string
	topN     int
	client   *http.Client
}

// Option changes a Reranker that New makes.
type Option func(*Reranker)

// WithEndpoint sets the full URL, with its path: http://localhost:7997/rerank.
func WithEndpoint(url string) Option { return func(r *Reranker) { r.endpoint = url } }

// WithModel names the model; without one the server chooses.
func WithModel(name string) Option { return func(r *Reranker) { r.model = name } }

// WithAPIKey sets the key that is sent as a bearer token.
func WithAPIKey(key string) Option { return func(r *Reranker) { r.apiKey = key } }

// WithTopN keeps only the best n documents; 0 or less, the default, keeps all.
func WithTopN(n int) Option { return func(r *Reranker) { r.topN = n } }

// WithHTTPClient replaces the client, which gives up after 30 seconds; nil keeps it.
func WithHTTPClient(client *http.Client) Option {
	return func(r *Reranker) {
		if client != nil {
			r.client = client
		}
	}
}

// New makes a Reranker. It fails without an endpoint.
func New(options ...Option) (*Reranker, error) {
	r := &Reranker{topN: defaultTopN, client: &http.Client{Timeout: defaultTimeout}}
	for _, option := range options {
		option(r)
	}
	if r.endpoint == "" {
		return nil, errors.New("infinity endpoint cannot be empty")
	}
	return r, nil
}

// StatusError is an answer with another status than 200.
type StatusError struct {
	Status int
	Body   string
}

func (e *StatusError) Error() string { return fmt.Sprintf("status %d: %s", e.Status, e.Body) }

// Message is what a JSON body says under message, detail or error, also inside error; else the whole body.
func (e *StatusError) Message() string {
	var found struct {
		Message, Detail string
		Error           json.RawMessage
	}
	// A field of another type leaves the others as they are.
	_ = json.Unmarshal([]byte(e.Body), &found)
	var text string
	var inside struct{ Message string }
	_ = json.Unmarshal(found.Error, &text)
	_ = json.Unmarshal(found.Error, &inside)
	for _, one := range []string{inside.Message, found.Message, found.Detail, text} {
		if one != "" {
			return one
		}
	}
	return e.Body
}

type request struct {
	Model     string   `json:"model,omitempty"`
	Query     string   `json:"query"`
	Documents []string `json:"documents"`
	TopN      int      `json:"top_n,omitempty"`
}

type response struct {
	Results []struct {
		Index          int     `json:"index"`
		RelevanceScore float64 `json:"relevance_score"`
	} `json:"results"`
}

// Rerank gives the documents by their relevance to the query, the best first. Without documents nothing is asked.
//
// A server that answers with anything but 200 makes a *StatusError.
func (r *Reranker) Rerank(ctx context.Context, query string, documents []string) ([]Result, error) {
	if len(documents) == 0 {
		return nil, nil
	}
	answer, err := r.post(ctx, request{Model: r.model, Query: query, Documents: documents, TopN: r.topN})
	if err != nil {
		return nil, err
	}
	results := make([]Result, 0, len(answer.Results))
	for _, found := range answer.Results {
		if found.Index < 0 || found.Index >= len(documents) {
			log.Printf("infinity: the server scored document %d of %d; dropped", found.Index, len(documents))
			continue
		}
		results = append(results, Result{found.Index, found.RelevanceScore, documents[found.Index]})
	}
	sort.SliceStable(results, func(i, j int) bool { return results[i].Score > results[j].Score })
	// Servers may ignore top_n.
	if r.topN > 0 && len(results) > r.topN {
		results = results[:r.topN]
	}
	return results, nil
}

func (r *Reranker) post(ctx context.Context, body request) (*response, error) {
	encoded, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("marshal request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.endpoint, bytes.NewReader(encoded))
	if err != nil {
		return nil, fmt.Errorf("create request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	if r.apiKey != "" {
		req.Header.Set("Authorization", "Bearer "+r.apiKey)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("do request: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(resp.Body)
		return nil, &StatusError{resp.StatusCode, string(text)}
	}
	var answer response
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return nil, fmt.Errorf("decode response: %w", err)
	}
	return &answer, nil
}
