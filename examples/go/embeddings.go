package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/lemni/lemni/examples/go/infinity"
)

const (
	openAI      = "https://api.openai.com/v1"
	openAIModel = "text-embedding-3-small"
)

// embedder asks OpenAI's /embeddings, or another server's of this kind.
type embedder struct {
	url    string
	model  string
	apiKey string
	client *http.Client
}

func newEmbedder(endpoint, model, apiKey string) (*embedder, error) {
	key, base := os.Getenv("OPENAI_API_KEY"), os.Getenv("OPENAI_BASE_URL")
	client := &http.Client{Timeout: 30 * time.Second}
	if key == "" && base == "" {
		// The reranker's server has embeddings beside /rerank, and knows what its model is.
		parsed, err := url.Parse(endpoint)
		if err != nil {
			return nil, err
		}
		return &embedder{parsed.ResolveReference(&url.URL{Path: "embeddings"}).String(), model, apiKey, client}, nil
	}
	if base == "" {
		base = openAI
		fmt.Fprintf(os.Stderr, "Texts are sent to %s: OPENAI_API_KEY is set, OPENAI_BASE_URL names no other.\n", openAI)
	}
	if model == "" {
		model = openAIModel
	}
	return &embedder{strings.TrimRight(base, "/") + "/embeddings", model, key, client}, nil
}

// name is the model's, by the server if none was given.
func (e *embedder) name(ctx context.Context) (string, error) {
	if e.model != "" {
		return e.model, nil
	}
	answer, err := e.embed(ctx, []string{testCases[0].query})
	return answer.Model, err
}

// similarities are the cosines of the documents with the query.
func (e *embedder) similarities(ctx context.Context, query string, documents []string) ([]infinity.Result, error) {
	answer, err := e.embed(ctx, append([]string{query}, documents...))
	if err != nil {
		return nil, err
	}
	vectors := make([][]float64, len(documents)+1)
	for _, row := range answer.Data {
		if row.Index < 0 || row.Index >= len(vectors) {
			return nil, fmt.Errorf("embeddings: an answer for text %d of %d", row.Index, len(vectors))
		}
		vectors[row.Index] = row.Embedding
	}
	results := make([]infinity.Result, len(documents))
	for index, document := range documents {
		score, err := cosine(vectors[0], vectors[index+1])
		if err != nil {
			return nil, err
		}
		results[index] = infinity.Result{Index: index, Score: score, Document: document}
	}
	return results, nil
}

type embeddings struct {
	Model string `json:"model"`
	Data  []struct {
		Index     int       `json:"index"`
		Embedding []float64 `json:"embedding"`
	} `json:"data"`
}

func (e *embedder) embed(ctx context.Context, texts []string) (answer embeddings, err error) {
	body, err := json.Marshal(struct {
		Model string   `json:"model,omitempty"`
		Input []string `json:"input"`
	}{e.model, texts})
	if err != nil {
		return answer, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.url, bytes.NewReader(body))
	if err != nil {
		return answer, err
	}
	req.Header.Set("Content-Type", "application/json")
	if e.apiKey != "" {
		req.Header.Set("Authorization", "Bearer "+e.apiKey)
	}
	resp, err := e.client.Do(req)
	if err != nil {
		return answer, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(resp.Body)
		return answer, fmt.Errorf("embeddings: %w", &infinity.StatusError{Status: resp.StatusCode, Body: string(text)})
	}
	return answer, json.NewDecoder(resp.Body).Decode(&answer)
}

func cosine(a, b []float64) (float64, error) {
	if len(a) == 0 || len(a) != len(b) {
		return 0, fmt.Errorf("embeddings: vectors of %d and %d values", len(a), len(b))
	}
	var dot, first, second float64
	for i := range a {
		dot += a[i] * b[i]
		first += a[i] * a[i]
		second += b[i] * b[i]
	}
	return dot / math.Sqrt(first*second), nil
}
